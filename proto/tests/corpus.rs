//! Every file that the fuzz targets start from, on the stable compiler: what found a bug once
//! never finds it again.

use std::fs;
use std::path::{Path, PathBuf};

use tradewind_proto::wire::WireError;

#[path = "../fuzz/src/lib.rs"]
mod parsers;

type Parser = fn(&[u8]) -> Result<(), WireError>;

const TARGETS: [(&str, Parser); 5] = [
    ("packet", parsers::packet),
    ("signal", parsers::signal),
    ("datagram", parsers::datagram),
    ("message", parsers::message),
    ("statement", parsers::statement),
];

fn corpus_of(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_corpus_gets_the_answers_that_its_names_say() {
    for (target, parse) in TARGETS {
        let (mut accepted, mut refused) = (0, 0);
        for path in corpus_of(target) {
            let answer = parse(&fs::read(&path).unwrap());
            let name = path.file_name().unwrap().to_string_lossy();
            if name.starts_with("ok-") {
                assert_eq!(answer, Ok(()), "{target}/{name}");
                accepted += 1;
            } else if name.starts_with("bad-") {
                assert!(answer.is_err(), "{target}/{name}");
                refused += 1;
            }
        }
        assert!(accepted > 0 && refused > 0, "{target} has no seeds of both kinds");
    }
}

#[test]
fn every_target_has_its_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    for (target, _) in TARGETS {
        assert!(folder.join(format!("{target}.rs")).is_file(), "{target}");
    }
}
