//! What the figures were taken on.

use std::process::Command;

use crate::plane::Plane;

/// Prints machine, versions and what runs.
pub fn print(plane: &Plane) {
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
    println!("  load over the last minute before the start: {}", read("/proc/loadavg").split(' ').next().unwrap_or_default());
    println!("  {}, {}", first_line(&plane.paths.apiserver), first_line(&plane.paths.etcd));
    println!("  {} (release build), its own process; all of the above on the same machine, etcd without fsync", first_line(&plane.program));
}

fn first_line(program: &std::path::Path) -> String {
    let output = Command::new(program).arg("--version").output().map(|o| o.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if text.contains(&*name) { text } else { format!("{name} {}", text.trim_start_matches("Kubernetes ")) }
}
