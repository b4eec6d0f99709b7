//! Files about traffic: packets that somebody recorded, and who talks to whom how much.

use std::collections::HashMap;
use std::time::Duration;

use tradewind_proto::units::PopId;

use super::place::Names;
use super::table::Table;
use super::trace::Clock;
use super::{Source, wrong};
use crate::traffic::Recording;
use crate::world::Traffic;
use crate::world::error::WorldError;

/// Packets: `t_ms` or `t_s`, when each left, in order, and `bytes`, its UDP payload. Times count from
/// the first; after the last it begins again, a mean gap later. Packets too small for a meter's
/// header are made larger.
pub(super) fn recording(source: &Source) -> Result<Recording, WorldError> {
    let mut table = Table::new(source)?;
    let (clock, bytes) = (Clock::of(&table)?, table.column(&["bytes"])?);
    let mut packets: Vec<(Duration, usize)> = Vec::new();
    let mut first = None;
    while table.next()? {
        let at = clock.micros(&table, packets.len())?;
        let size = table.number(bytes)?;
        if !(0.0..=Traffic::MAX_SIZE as f64).contains(&size) {
            return Err(table.wrong(format!("a packet has at most {} bytes", Traffic::MAX_SIZE)));
        }
        let since = at.checked_sub(*first.get_or_insert(at)).map(Duration::from_micros);
        let last = packets.last().map_or(Duration::ZERO, |(at, _)| *at);
        let Some(since) = since.filter(|since| *since >= last) else {
            return Err(table.wrong("it left before the packet of the row above"));
        };
        packets.push((since, (size as usize).max(Traffic::MIN_SIZE)));
    }
    let length = packets.last().map_or(Duration::ZERO, |(at, _)| *at);
    if length.is_zero() {
        let message = "a recording has packets at two times at least".to_owned();
        return Err(wrong(&source.name, None, message));
    }
    // As many gaps as packets, that from the last one back to the first included.
    let gaps = (packets.len() - 1) as f64;
    let length = length.mul_f64(packets.len() as f64 / gaps);
    Ok(Recording { packets, length })
}

/// From which PoP to which, by number, and how much.
type Weight = ((usize, usize), f64);

/// `from`, `to` and `weight`, for pairs of these PoPs; rows about others don't matter.
pub(in crate::world) fn weights(
    source: &Source,
    pops: &HashMap<PopId, usize>,
) -> Result<Vec<Weight>, WorldError> {
    let mut table = Table::new(source)?;
    let from = table.column(&["from", "src", "source"])?;
    let to = table.column(&["to", "dst", "target"])?;
    let weight = table.column(&["weight"])?;
    let mut weights = Vec::new();
    while table.next()? {
        let share = table.number(weight)?;
        if share < 0.0 {
            return Err(table.wrong(format!("a weight is 0 at least, not {share}")));
        }
        let pop = |column| Names::plain(table.text(column)).and_then(|id| pops.get(&id).copied());
        if let (Some(from), Some(to)) = (pop(from), pop(to))
            && from != to
        {
            weights.push(((from, to), share));
        }
    }
    Ok(weights)
}
