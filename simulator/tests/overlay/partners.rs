//! Overlays too large for links between all: flows get the direct link that the mesh leaves out.

use tradewind_simulator::overlay::{FlowSpec, Overlay, RelaySpec, pop};

use crate::world::{delay, ms, secs};

fn linked(overlay: &Overlay, a: &str, b: &str) -> bool {
    overlay.node(a).is_some_and(|node| node.neighbours().get(pop(b).key()).is_some())
}

/// All have a link to the first relay only, which keeps so many of them cheap; then the farthest two
/// could have one, too.
#[test]
fn a_flow_moves_to_the_direct_link_that_the_mesh_leaves_out() {
    let mut overlay = Overlay::new(1);
    for number in 0..70 {
        let name = format!("r{number}");
        overlay.add(RelaySpec::new(pop(&name)).dialling(["r0"]));
        if number > 0 {
            overlay.link_both("r0", &name, &delay(20 + number));
        }
    }
    overlay.start_all();
    overlay.run_for(secs(8));
    overlay.link_both("r68", "r69", &delay(100));
    overlay.run_for(secs(8));
    assert!(!linked(&overlay, "r68", "r69"), "the mesh leaves it out");
    assert_eq!(overlay.route("r68", "r69").unwrap_or_default(), ["r68", "r0", "r69"]);
    let began = overlay.now();
    let flow = overlay.flow(FlowSpec { echo: true, ..FlowSpec::new("r68", "r69") });
    let both = |overlay: &Overlay| {
        overlay.route("r68", "r69").is_some_and(|path| path == ["r68", "r69"])
            && overlay.route("r69", "r68").is_some_and(|path| path == ["r69", "r68"])
    };
    let took = overlay.run_while_not(secs(8), both);
    println!("over the direct link after {took:?}");
    assert!(took.is_some());
    overlay.run_for(secs(4));
    assert!(both(&overlay));
    let (now, record) = (overlay.now(), overlay.record(flow));
    let (delivered, sent) = record.delivered_of(began, now.minus(secs(1)));
    assert_eq!(delivered, sent, "none was lost on the move");
    let slowest = record.between(now.minus(secs(1)), now).map(|delivery| delivery.delay()).max();
    assert!(slowest.is_some_and(|slowest| slowest < ms(102)), "{slowest:?}");
}
