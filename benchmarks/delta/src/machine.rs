//! What a result must say about where it was measured.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde::Serialize;

/// Instruction sets that decide the speed of coders.
const TELLING_FEATURES: [&str; 12] = [
    "sse4_2",
    "avx2",
    "bmi2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vbmi",
    "avx512_vbmi2",
    "gfni",
    "asimd",
    "sve",
];

/// The machine of a run.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Processor, as it names itself.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Those of the instruction sets that matter here which it has.
    pub features: Vec<String>,
    /// Operating system and architecture.
    pub system: String,
}

impl Machine {
    /// Asks the operating system.
    pub fn detect() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(": "))
                .map(|(_, value)| value.to_owned())
        };
        let flags = field("flags")
            .or_else(|| field("Features"))
            .unwrap_or_default();
        let has = |feature: &&str| flags.split(' ').any(|flag| flag == *feature);
        Self {
            cpu: field("model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            features: TELLING_FEATURES
                .iter()
                .filter(|f| has(f))
                .map(|f| (*f).to_owned())
                .collect(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// The commit that was measured; `-dirty` when the tree had changes.
pub fn commit() -> Option<String> {
    first_line(
        "git",
        &[
            "describe",
            "--always",
            "--abbrev=40",
            "--dirty",
            "--exclude=*",
        ],
    )
}

/// Versions of the tools that took part, by name.
pub fn versions() -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    versions.insert(
        "bench-delta".to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
    );
    versions.insert(
        "zstd".to_owned(),
        zstd::zstd_safe::version_string().to_owned(),
    );
    if let Some(rustc) = first_line("rustc", &["--version"]) {
        versions.insert("rustc".to_owned(), rustc);
    }
    versions
}

/// The first line that a command prints, if it runs.
pub fn first_line(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let line = String::from_utf8_lossy(&text)
        .lines()
        .next()?
        .trim()
        .to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
