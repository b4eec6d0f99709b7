//! Nearly valid bytes for the tests of all parsers: they get further than random ones.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Damage to an encoding.
#[derive(Clone, Debug)]
enum Damage {
    Replace(Index, u8),
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, u8),
    Remove(Index),
}

/// Encodings out of `valid` with up to four damages each.
pub(crate) fn mutated(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (valid, vec(damage(), 0..5)).prop_map(|(mut bytes, damages)| {
        damages.iter().for_each(|damage| inflict(damage, &mut bytes));
        bytes
    })
}

fn damage() -> impl Strategy<Value = Damage> {
    let extreme = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    prop_oneof![
        4 => (any::<Index>(), extreme).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        4 => (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, 1 << bit)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => any::<Index>().prop_map(Damage::Remove),
    ]
}

fn inflict(damage: &Damage, bytes: &mut Vec<u8>) {
    let len = bytes.len();
    match *damage {
        Damage::Insert(at, byte) => bytes.insert(at.index(len + 1), byte),
        _ if len == 0 => (),
        Damage::Replace(at, byte) => bytes[at.index(len)] = byte,
        Damage::Flip(at, bits) => bytes[at.index(len)] ^= bits,
        Damage::Cut(at) => bytes.truncate(at.index(len)),
        Damage::Remove(at) => drop(bytes.remove(at.index(len))),
    }
}
