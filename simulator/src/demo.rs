//! The built-in world of `tradewind-sim demo`.

use crate::world::{World, WorldError};

/// Five places with measured latencies, a bad direct path, a relay that dies halfway.
///
/// # Errors
///
/// None with the file as built in; a test reads it.
pub fn world() -> Result<World, WorldError> {
    World::parse("demo.toml (built in)", include_str!("../worlds/demo.toml"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::world::Happening;

    const MEASURED: &str = include_str!("../data/demo_latency.csv");

    fn city(pop: &str) -> &'static str {
        match pop {
            "hkg" => "Hong Kong",
            "del" => "New Delhi",
            "sin" => "Singapore",
            "blr" => "Bangalore",
            "tpe" => "Taipei",
            other => panic!("{other}"),
        }
    }

    fn measured() -> BTreeMap<(&'static str, &'static str), f64> {
        let row = |line: &'static str| {
            let cells: Vec<&str> = line.split(',').collect();
            ((cells[0], cells[1]), cells[2].parse().unwrap())
        };
        MEASURED.lines().skip(1).map(row).collect()
    }

    #[test]
    fn delays_are_the_measured_ones() {
        let (world, measured) = (world().unwrap(), measured());
        assert_eq!((world.pops.len(), world.links.len()), (5, measured.len()));
        for ((from, to), spec) in &world.links {
            let (from, to) = (city(from.as_str()), city(to.as_str()));
            let rtt = measured[&(from, to)].max(measured[&(to, from)]);
            let one_way = Duration::from_secs_f64(rtt / 2e3);
            assert!(spec.delay.abs_diff(one_way) < Duration::from_micros(10), "{from} > {to}");
        }
    }

    #[test]
    fn every_world_that_ships_is_valid() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("worlds");
        let list = |dir| std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
        let mut files: Vec<_> = list(dir.clone()).filter(|path| path.is_file()).collect();
        files.extend(list(dir.join("calibration")));
        assert!(files.len() >= 8);
        for file in files {
            World::load(&file).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn two_relays_beat_the_direct_path_so_that_one_may_die() {
        let world = world().unwrap();
        let delay =
            |from: &str, to: &str| world.links[&(from.parse().unwrap(), to.parse().unwrap())].delay;
        for relay in ["sin", "blr"] {
            assert!((delay("hkg", relay) + delay(relay, "del")) * 2 < delay("hkg", "del"));
        }
        assert_eq!(world.events[0].what, Happening::KillRelayOf("media".into()));
    }
}
