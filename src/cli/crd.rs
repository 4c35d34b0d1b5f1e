//! `crd`: writes the CustomResourceDefinitions, or checks that files are up to date.

use std::io::Write;
use std::path::Path;

use super::args::CrdArgs;
use super::error::CliError;
use crate::api::crds;

/// Writes every CRD to the folder or to standard output, or compares.
///
/// # Errors
/// A file that cannot be written; with `--check`, files that differ or cannot be read.
pub fn crd(args: &CrdArgs) -> Result<(), CliError> {
    match &args.dir {
        Some(dir) if args.check => check(dir),
        Some(dir) => write(dir),
        None => print(&mut std::io::stdout().lock()),
    }
}

fn print(out: &mut impl Write) -> Result<(), CliError> {
    for (_, crd) in crds::all() {
        write!(out, "---\n{}", crds::to_yaml(&crd)).map_err(|source| CliError::Io { what: "print the CRDs".into(), source })?;
    }
    Ok(())
}

fn write(dir: &Path) -> Result<(), CliError> {
    let fail = |path: &Path| {
        let what = format!("write {}", path.display());
        |source| CliError::Io { what, source }
    };
    std::fs::create_dir_all(dir).map_err(fail(dir))?;
    for (name, crd) in crds::all() {
        let path = dir.join(format!("{name}.yaml"));
        std::fs::write(&path, crds::to_yaml(&crd)).map_err(fail(&path))?;
    }
    Ok(())
}

fn check(dir: &Path) -> Result<(), CliError> {
    let mut old = Vec::new();
    for (name, crd) in crds::all() {
        let path = dir.join(format!("{name}.yaml"));
        match std::fs::read_to_string(&path) {
            Ok(text) if text == crds::to_yaml(&crd) => {}
            Ok(_) => old.push(path.display().to_string()),
            Err(error) => old.push(format!("{} ({error})", path.display())),
        }
    }
    let dir = dir.display();
    if old.is_empty() { Ok(()) } else { Err(CliError::Differs(format!("not up to date: {}; run crd --dir {dir}", old.join(", ")))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_passes_the_check_until_it_is_edited() {
        let dir = tempfile::tempdir().unwrap();
        let args = |check| CrdArgs { dir: Some(dir.path().join("crds")), check };
        assert!(matches!(crd(&args(true)), Err(CliError::Differs(_))));
        crd(&args(false)).unwrap();
        crd(&args(true)).unwrap();
        std::fs::write(dir.path().join("crds/voicerollouts.yaml"), "{}").unwrap();
        let error = crd(&args(true)).unwrap_err().to_string();
        assert!(error.contains("voicerollouts.yaml") && !error.contains("voiceanalysisruns.yaml"), "{error}");
    }

    #[test]
    fn the_printed_documents_are_all_crds() {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        let documents = serde_yaml::Deserializer::from_slice(&out);
        let kinds: Vec<serde_json::Value> = documents.map(|d| serde::Deserialize::deserialize(d).unwrap()).collect();
        assert_eq!(kinds.len(), crds::all().len());
        assert!(kinds.iter().all(|d| d["kind"] == "CustomResourceDefinition"));
    }
}
