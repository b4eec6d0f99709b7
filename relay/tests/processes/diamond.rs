//! Four relays with two ways between the outer two.

use super::harness::{Overlay, Setup, wait_for};
use super::traffic::Echo;

/// a-b-d and a-c-d, no link between a and d, nor between b and c; the echo service is behind d. Where
/// the tunnel at a listens is returned; `tunnel` are more lines of its table.
pub fn diamond(echo: &Echo, tunnel: &str) -> (Overlay, String) {
    let mut overlay = Overlay::new();
    let listen = format!("127.0.0.1:{}", overlay.port());
    let edges = format!("[[tunnel]]\nlisten = \"{listen}\"\nservice = \"echo\"\n{tunnel}\n");
    let mesh = Setup { overlay: "mesh = \"peers\"", ..Setup::default() };
    overlay.add("a", Setup { peers: &["b", "c"], edges: &edges, ..mesh });
    overlay.add("b", mesh);
    overlay.add("c", mesh);
    overlay.add("d", Setup { peers: &["b", "c"], edges: &echo.service("echo"), ..mesh });
    overlay.wait_ready(&["a", "b", "c", "d"]);
    for (one, other) in [("a", "b"), ("a", "c"), ("d", "b"), ("d", "c")] {
        wait_for(&format!("{one} and {other} are linked"), || {
            overlay.link_state(one, other) == "up"
        });
    }
    overlay.wait_route("a", "d");
    (overlay, listen)
}

/// The relay between that packets from a go over now.
pub fn between(overlay: &Overlay) -> String {
    let flows = overlay.flows("a").flows;
    let path = &flows.first().expect("there is a flow").path_tx;
    assert_eq!((path.len(), path[0].as_str(), path[2].as_str()), (3, "a", "d"), "{path:?}");
    path[1].clone()
}
