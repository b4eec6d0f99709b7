//! What happens in a world while it runs, done to whatever runs it: real relays or virtual ones.

use std::collections::BTreeSet;

use tradewind_proto::units::PopId;

use crate::link::LinkSpec;
use crate::world::{Event, Happening, LinkId, Traffic, World};

/// Where a world is run.
pub trait Stage {
    /// The present route of `traffic`, both ends included; `None` if there is none.
    fn route(&self, traffic: &Traffic) -> Option<Vec<PopId>>;

    /// The relay at `pop` dies without a word; whether one was alive.
    fn kill(&mut self, pop: &PopId) -> bool;

    /// The relay at `pop` leaves in good order; whether one was there.
    fn drain(&mut self, pop: &PopId) -> bool;

    /// Starts the relay at `pop` unless it runs.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from starting.
    fn revive(&mut self, pop: &PopId) -> anyhow::Result<()>;

    /// Cuts a link, or restores it.
    fn set_up(&mut self, link: &LinkId, up: bool);

    /// A link behaves like this from now on.
    fn set(&mut self, link: &LinkId, spec: &LinkSpec);
}

/// Makes an event happen, and says what came of it; nothing of one that is not told.
///
/// # Errors
///
/// A relay that can't be started again.
pub fn perform(stage: &mut impl Stage, world: &World, event: &Event) -> anyhow::Result<String> {
    let told = happen(stage, world, &event.what)?;
    Ok(event.title.clone().unwrap_or(told))
}

fn happen(stage: &mut impl Stage, world: &World, what: &Happening) -> anyhow::Result<String> {
    Ok(match what {
        Happening::Kill(pop) => kill(stage, pop),
        Happening::KillRelayOf(name) => {
            let route = world.traffic_named(name).and_then(|traffic| stage.route(traffic));
            match route.as_deref() {
                Some([_, relay, .., _]) => {
                    format!("{}, it carried \"{name}\"", kill(stage, relay))
                }
                _ => format!("no relay carries \"{name}\", none killed"),
            }
        }
        Happening::Drain(pop) => match stage.drain(pop) {
            true => format!("relay {pop} leaves"),
            false => format!("relay {pop} was dead already"),
        },
        Happening::Join(pop) => {
            stage.revive(pop)?;
            format!("relay {pop} joins")
        }
        Happening::Restart(pop) => {
            stage.revive(pop)?;
            format!("relay {pop} started again")
        }
        Happening::Crowd => "more flows begin".into(),
        Happening::Cut(links) => {
            links.iter().for_each(|link| stage.set_up(link, false));
            format!("cut {}", link_names(links.iter()))
        }
        Happening::Restore(links) => {
            for link in links {
                stage.set(link, &world.links[link]);
                stage.set_up(link, true);
            }
            format!("restored {}", link_names(links.iter()))
        }
        Happening::Degrade(links) => {
            links.iter().for_each(|(link, spec)| stage.set(link, spec));
            format!("degraded {}", link_names(links.iter().map(|(link, _)| link)))
        }
    })
}

fn kill(stage: &mut impl Stage, pop: &PopId) -> String {
    match stage.kill(pop) {
        true => format!("relay {pop} killed"),
        false => format!("relay {pop} was dead already"),
    }
}

/// `a-b` for a link both of whose directions are named, `a>b` for one.
fn link_names<'a>(links: impl Iterator<Item = &'a LinkId>) -> String {
    let links: BTreeSet<&LinkId> = links.collect();
    let name = |link: &&LinkId| {
        let (from, to) = *link;
        match links.contains(&(to.clone(), from.clone())) {
            true if from > to => None,
            true => Some(format!("{from}-{to}")),
            false => Some(format!("{from}>{to}")),
        }
    };
    links.iter().filter_map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_named_together_are_one_link() {
        let id = |name: &str| -> PopId { name.parse().unwrap() };
        let links = [(id("a"), id("b")), (id("b"), id("a")), (id("c"), id("a"))];
        assert_eq!(link_names(links.iter()), "a-b, c>a");
    }
}
