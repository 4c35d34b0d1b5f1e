//! What the figures were taken on.

use std::process::Command;

use crate::plane;
use crate::stack::paths::Paths;
use crate::stack::{Error, Result};

/// Prints the machine and how this program was built.
pub fn print() {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = kilobytes(&read("/proc/meminfo"), "MemTotal").unwrap_or(f64::NAN) / 1024.0 / 1024.0;
    println!("machine");
    println!(
        "  {cores} cores of {}, {memory:.1} GiB, Linux {}; build profile {}",
        field(&read("/proc/cpuinfo"), "model name"),
        read("/proc/sys/kernel/osrelease").trim(),
        profile()
    );
    println!("  load over the last minute before the start: {}", load());
}

/// Prints versions and what runs.
pub fn print_versions() -> Result<()> {
    let (paths, program) = (Paths::find()?, plane::program()?);
    println!("\ncontrol plane");
    println!("  {}, {}", first_line(&paths.apiserver), first_line(&paths.etcd));
    println!("  {} ({} MiB), a process of its own", first_line(&program), std::fs::metadata(&program)?.len() >> 20);
    println!(
        "  all on this machine: operator, API server, etcd without fsync, controller-manager, a node without programs, the gates' server"
    );
    Ok(())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

fn kilobytes(text: &str, name: &str) -> Option<f64> {
    field(text, name).trim_end_matches(" kB").parse().ok()
}

/// Resident memory of this process, in MiB.
pub fn memory() -> Result<f64> {
    let now = kilobytes(&read("/proc/self/status"), "VmRSS");
    now.map(|kb| kb / 1024.0).ok_or_else(|| Error::other("/proc/self/status has no VmRSS"))
}

/// Begins to note the most memory that this process has; gives what it has now, in MiB (`clear_refs` in proc(5)).
pub fn peak_memory_from_here() -> Result<f64> {
    std::fs::write("/proc/self/clear_refs", "5")?;
    peak_memory()
}

/// Most resident memory of this process since then, in MiB.
pub fn peak_memory() -> Result<f64> {
    let most = kilobytes(&read("/proc/self/status"), "VmHWM");
    most.map(|kb| kb / 1024.0).ok_or_else(|| Error::other("/proc/self/status has no VmHWM"))
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
