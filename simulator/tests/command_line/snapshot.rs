//! `tradewind-sim import snapshot`.

use tradewind_relay::api::types::{Export, ExportedLink, ExportedPop};

use super::{directory, sim, stderr};

#[test]
fn what_a_live_overlay_exported_becomes_a_world_that_runs() {
    let pop = |id: &str| ExportedPop { id: id.into(), ..ExportedPop::default() };
    let link = |from: &str, to: &str| ExportedLink {
        from: from.into(),
        to: to.into(),
        up: true,
        delay_ms: 12.0,
        load_mbps: 0.5,
        ..ExportedLink::default()
    };
    let export = Export {
        node: "fra".into(),
        at: "2026-01-01T00:00:00Z".into(),
        pops: ["fra", "mad"].map(pop).into(),
        links: vec![link("fra", "mad"), link("mad", "fra")],
    };
    let dir = directory("snapshot");
    let [snapshot, world] = ["now.json", "now.toml"].map(|name| dir.join(name));
    std::fs::write(&snapshot, serde_json::to_string(&export).unwrap()).unwrap();
    let [snapshot, world] = [&snapshot, &world].map(|path| path.to_str().unwrap());
    let output = sim(&["import", "snapshot", snapshot, "-o", world]);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = sim(&["run", world, "--json", "--what-if", "cut fra mad"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let share = |case: usize| {
        let flow = &document["cases"][case]["result"]["flows"][0];
        assert_eq!(flow["name"], "load-fra-mad");
        flow["overlay"]["in_time_share"].as_f64().unwrap()
    };
    assert!(share(0) > 0.999 && share(1) < 0.6, "{document}");
    std::fs::remove_dir_all(&dir).unwrap();
}
