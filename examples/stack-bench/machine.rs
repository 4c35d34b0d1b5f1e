//! What the figures were taken on.

use std::process::Command;

use crate::plane;
use crate::stack::Result;
use crate::stack::paths::Paths;

/// Prints machine, versions and what runs.
pub fn print() -> Result<()> {
    let (paths, program) = (Paths::find()?, plane::program()?);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0 / 1024.0;
    println!("machine");
    println!(
        "  {cores} cores of {}, {memory:.1} GiB, Linux {}",
        field(&read("/proc/cpuinfo"), "model name"),
        read("/proc/sys/kernel/osrelease").trim()
    );
    println!("  load over the last minute before the start: {}", load());
    println!("  {}, {}", first_line(&paths.apiserver), first_line(&paths.etcd));
    println!(
        "  {} ({} MiB, build profile {}), a process of its own",
        first_line(&program),
        std::fs::metadata(&program)?.len() >> 20,
        profile()
    );
    println!(
        "  all on this machine: operator, API server, etcd without fsync, controller-manager, a node without programs, the gates' server"
    );
    Ok(())
}

/// Processes that ran or waited for a processor, on average over the last minute; those of the bench are among them.
pub fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "dev: the figures say nothing" } else { "release" }
}

fn first_line(program: &std::path::Path) -> String {
    let output = Command::new(program).arg("--version").output().map(|o| o.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if text.contains(&*name) { text } else { format!("{name} {}", text.trim_start_matches("Kubernetes ")) }
}
