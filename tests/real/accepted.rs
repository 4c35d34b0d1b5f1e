//! What lies in `examples/` is what the API server takes, with the chart's CRDs and policies.

use std::path::Path;

use crate::run;

/// Of a kind that this stack does not have; and a command, which the policy takes only from the user it names.
const LEFT_OUT: [&str; 2] = ["podmonitor.yaml", "action.yaml"];

#[test]
fn every_example_is_accepted() {
    run("accepted", async |agent| {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let mut args = vec!["apply".to_owned(), "--dry-run=server".into(), "-n".into(), agent.ns.name.clone()];
        for folder in [examples.clone(), examples.join("recipes")] {
            let files = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
            let files = files.iter().map(std::fs::DirEntry::path).filter(|path| path.extension().is_some_and(|e| e == "yaml"));
            let files = files.filter(|path| !LEFT_OUT.iter().any(|name| path.ends_with(name)));
            args.extend(files.flat_map(|path| ["-f".to_owned(), path.display().to_string()]));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let taken = agent.world.stack.kubectl(&args).await?;
        for kind in ["voicerollout", "voiceanalysistemplate", "virtualservice", "destinationrule", "service", "secret"] {
            assert!(taken.lines().any(|line| line.starts_with(kind) && line.contains("(server dry run)")), "no {kind}: {taken}");
        }
        Ok(())
    });
}
