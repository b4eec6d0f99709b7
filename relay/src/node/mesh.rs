//! Which members a relay keeps links to.

use tradewind_proto::units::{Incarnation, PolicyId, PopKey};
use tradewind_router::lsdb::Lsdb;
use tradewind_router::tables::Tables;

use super::Mesh;

/// Up to this many members everybody is everybody's neighbour.
const FULL_UP_TO: usize = 64;
/// Above that, so many of the nearest,
const NEAREST: usize = 16;
/// and so many spread evenly over the others.
const SPREAD: usize = 8;

/// The members that should be neighbours: key, address to dial, and which start of it is known.
pub fn wanted<'a>(
    lsdb: &'a Lsdb,
    tables: &Tables,
    own: PopKey,
    mesh: Mesh,
) -> Vec<(PopKey, &'a str, Incarnation)> {
    let mut others: Vec<_> = lsdb
        .members()
        .filter(|member| member.key() != own)
        .filter_map(|member| {
            let key = member.key();
            let address = member.state().addresses.first()?;
            let delay = tables.route(PolicyId::NONE, key).map(|entry| entry.primary.delay);
            Some((delay, key, address.as_str(), member.incarnation()))
        })
        .collect();
    if mesh == Mesh::Auto && others.len() >= FULL_UP_TO {
        // Those without a route yet come last.
        others.sort_by_key(|&(delay, key, ..)| (delay.is_none(), delay, key));
        let far = others.split_off(NEAREST);
        let step = far.len().div_ceil(SPREAD).max(1);
        others.extend(far.into_iter().step_by(step));
    }
    others.into_iter().map(|(_, key, address, incarnation)| (key, address, incarnation)).collect()
}
