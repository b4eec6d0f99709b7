//! What a person sees who calls `tradewind-sim` wrongly.

mod pcap;
mod snapshot;
mod sweep;
mod what_if;

use std::path::PathBuf;
use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tradewind-sim")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory of its own for a test.
fn directory(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tradewind-sim-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn a_world_that_is_wrong_is_named_in_one_line() {
    let path = std::env::temp_dir().join(format!("tradewind-sim-{}.toml", std::process::id()));
    std::fs::write(&path, "[run]\nsead = 3\n").unwrap();
    let output = sim(&["emulate", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let wanted =
        format!("error: {}:2: unknown key \"sead\"; did you mean \"seed\"?\n", path.display());
    assert_eq!(stderr(&output), wanted);
}

#[test]
fn a_world_that_is_missing_is_named() {
    let output = sim(&["emulate", "/nowhere/world.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("error: /nowhere/world.toml: can't read the world file"));
}

#[test]
fn wrong_usage_is_status_2_and_help_shows_examples() {
    for args in [&["emulate"][..], &["demos"], &["demo", "--seed", "x"], &[]] {
        assert_eq!(sim(args).status.code(), Some(2), "{args:?}");
    }
    for command in ["emulate", "run", "sweep", "demo"] {
        let output = sim(&[command, "--help"]);
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && help.contains("Examples:"), "{help}");
    }
}
