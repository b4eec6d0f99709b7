//! Who sends what: `[[traffic]]`.

use std::collections::BTreeSet;

use toml::Spanned;

use super::flow::{Setting, check_flow};
use super::{Checked, Pops};
use crate::world::Traffic;
use crate::world::error::Fault;
use crate::world::file::TrafficTable;

pub(super) fn check_traffic(
    tables: Vec<Spanned<TrafficTable>>,
    pops: &Pops,
    setting: Setting<'_>,
) -> Checked<Vec<Traffic>> {
    let mut names = BTreeSet::new();
    let mut list = Vec::with_capacity(tables.len());
    for (index, table) in tables.into_iter().enumerate() {
        let at = table.span();
        let table = table.into_inner();
        let ends = pops.pair(&[table.from.clone(), table.to.clone()], &at)?;
        let kind = check_flow(&table.flow_keys(), "traffic", setting, &at)?;
        let name = table.name.unwrap_or_else(|| format!("traffic-{}", index + 1));
        if !names.insert(name.clone()) {
            return Err(Fault::new(at, format!("a second [[traffic]] named \"{name}\"")));
        }
        list.push(kind.flow(name, None, ends));
    }
    Ok(list)
}
