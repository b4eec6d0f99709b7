//! Maps by [`PopKey`], which are looked into so often that the standard library's hash is a burden.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use tradewind_proto::units::PopKey;

/// A map by key. Who chooses keys so that they collide gets a slow map, but one of at most
/// [`super::MAX_MEMBERS`] entries.
pub(super) type ByKey<T> = HashMap<PopKey, T, BuildHasherDefault<KeyHasher>>;

/// Keys are hashes already; the map wants the upper bits to differ as well.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, key: u32) {
        // The odd number next to 2^64 divided by the golden ratio (Knuth).
        self.0 = (self.0 ^ u64::from(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
