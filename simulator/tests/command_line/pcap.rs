//! `tradewind-sim run WORLD --out DIR --pcap LINKS`.

use super::{directory, sim, stderr};

const WORLD: &str = r#"
[run]
duration = "1s"
warmup = "1s"
[[pop]]
id = "fra"
[[pop]]
id = "sgp"
[[link]]
between = ["fra", "sgp"]
delay = "20ms"
[[traffic]]
from = "fra"
to = "sgp"
pps = 50
size = 400
"#;

#[test]
fn packets_of_chosen_links_are_written_beside_the_report() {
    let dir = directory("pcap");
    let world = dir.join("pair.toml");
    let out = dir.join("report");
    std::fs::write(&world, WORLD).unwrap();
    let run = |more: &[&str]| sim(&[&["run", world.to_str().unwrap()][..], more].concat());
    let wrong = |args: &[&str]| {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        stderr(&output)
    };
    assert!(wrong(&["--pcap", "fra-sgp"]).contains("--out <DIR>"));
    let out = out.to_str().unwrap();
    let error = wrong(&["--out", out, "--pcap", "fra-sgp,sgp-far"]);
    let wanted = "--pcap: there is no link \"sgp-far\"; did you mean \"sgp-fra\"?\n";
    assert!(error.ends_with(wanted) && error.lines().count() == 1, "{error}");
    assert!(!std::fs::exists(out).unwrap(), "nothing is written before all is clear");
    let output = run(&["--out", out, "--pcap", "fra>sgp"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains(" packets captured in ") && told.contains("links.pcapng\n"), "{told}");
    let capture = std::fs::read(dir.join("report/links.pcapng")).unwrap();
    // A packet of 400 bytes for each of 50, and more.
    assert!(capture.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) && capture.len() > 20_000);
    assert!(dir.join("report/report.html").exists());
    std::fs::remove_dir_all(&dir).unwrap();
}
