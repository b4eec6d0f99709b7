use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::name_resolution::Record;
use pcap_file::pcapng::{Block, PcapNgReader};
use tradewind_proto::frame::Frame;
use tradewind_proto::units::Timestamp;

use super::*;
use crate::link::Delivery;
use crate::outcome::Outcome;
use crate::progress::Silent;
use crate::simulation;

const WORLD: &str = r#"
[run]
duration = "2s"
warmup = "1s"
[[pop]]
id = "a"
[[pop]]
id = "b-1"
[[link]]
between = ["a", "b-1"]
delay = "20ms"
loss = "10%"
[[traffic]]
from = "a"
to = "b-1"
pps = 200
size = 400
"#;

fn world() -> World {
    World::parse("test", WORLD).unwrap()
}

fn all_links(world: &World) -> Vec<LinkId> {
    links(world, &["a-b-1".into()]).unwrap()
}

/// A file in memory that can still be read when a capture owns it.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A packet as another reader of pcapng understands it.
#[derive(Debug, PartialEq)]
struct Read {
    interface: u32,
    micros: u128,
    length: u32,
    kept: Vec<u8>,
    comment: Option<String>,
}

/// The names of interfaces, the addresses and their names, the packets.
type File = (Vec<String>, Vec<(String, String)>, Vec<Read>);

fn read(file: &Memory) -> File {
    let bytes = file.0.borrow();
    let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
    let (mut interfaces, mut names, mut packets) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(block) => {
                let name = block.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                interfaces.push(name.unwrap());
            }
            Block::NameResolution(block) => names.extend(block.records.iter().map(|record| {
                let Record::Ipv4(record) = record else { panic!("{record:?}") };
                let [a, b, c, d] = record.ip_addr[..] else { panic!("{record:?}") };
                (Ipv4Addr::new(a, b, c, d).to_string(), record.names.join(" "))
            })),
            Block::EnhancedPacket(block) => packets.push(Read {
                interface: block.interface_id,
                // That reader takes what stands there for nanoseconds.
                micros: block.timestamp.as_nanos(),
                length: block.original_len,
                kept: block.data.to_vec(),
                comment: block.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Comment(comment) => Some(comment.to_string()),
                    _ => None,
                }),
            }),
            other => panic!("{other:?}"),
        }
    }
    (interfaces, names, packets)
}

#[test]
fn another_reader_finds_what_was_written() {
    let (file, world) = (Memory::default(), world());
    let mut capture = Capture::new(&world, &all_links(&world), file.clone()).unwrap();
    let delivery = |flipped| Delivery { at: Timestamp::from_micros(1), flipped };
    let whole = Fate::Once(delivery(None));
    let late = Duration::from_secs(5_000);
    capture.packet(0, Duration::from_micros(7), 63, Payload::Frames(b"frame"), whole);
    capture.packet(1, late, 1480, Payload::Handshake, Fate::Dropped(DropReason::Loss));
    capture.packet(0, late, 60, Payload::Control(b"abc"), Fate::Once(delivery(Some(3))));
    assert_eq!(capture.finish().unwrap(), Captured { packets: 3, left_out: 0 });
    let (interfaces, names, packets) = read(&file);
    assert_eq!(interfaces, ["a>b-1", "b-1>a"]);
    let name = |address: &str, name: &str| (address.to_owned(), name.to_owned());
    assert_eq!(names, [name("10.0.0.1", "a"), name("10.0.0.2", "b-1")]);
    let told = |at: usize| {
        let Read { interface, micros, length, comment, .. } = &packets[at];
        (*interface, *micros, *length, comment.as_deref())
    };
    assert_eq!(told(0), (0, 7, 63, None));
    assert_eq!(told(1), (1, 5_000_000_000, 1480, Some("handshake; dropped: lost on the way")));
    assert_eq!(told(2), (0, 5_000_000_000, 60, Some("control stream; damaged on the way")));
    assert_eq!(packets.len(), 3);
    // Version and header length, type of service, length; not to be fragmented; 64 hops, UDP.
    let headers = [0x45, 0, 0, 63, 0, 0, 0x40, 0, 64, 17];
    assert_eq!(packets[0].kept[..10], headers);
    assert_eq!(
        internet_checksum(&packets[0].kept[..20]),
        0,
        "a right checksum makes the sum nothing"
    );
    let ends_and_udp = [10, 0, 0, 1, 10, 0, 0, 2, 0x1c, 0xe8, 0x1c, 0xe8, 0, 43, 0, 0];
    assert_eq!(packets[0].kept[12..28], ends_and_udp);
    assert_eq!(packets[0].kept[28..], *b"frame");
    assert_eq!(packets[1].kept.len(), 28);
}

#[test]
fn a_file_that_is_full_takes_nothing_more_and_says_how_much() {
    let (file, world) = (Memory::default(), world());
    let mut capture = Capture::new(&world, &all_links(&world), file.clone()).unwrap();
    capture.room = 200;
    let mut send = |size: usize| {
        let payload = vec![1; size];
        let fate = Fate::Dropped(DropReason::Loss);
        capture.packet(0, Duration::ZERO, size + 57, Payload::Frames(&payload), fate);
    };
    [50, 500, 1].into_iter().for_each(&mut send);
    assert_eq!(capture.finish().unwrap(), Captured { packets: 1, left_out: 2 });
    assert_eq!(read(&file).2.len(), 1);
}

fn captured(world: &World) -> (Outcome, Captured, Memory) {
    let file = Memory::default();
    let capture = Capture::new(world, &all_links(world), file.clone()).unwrap();
    let (outcome, captured) = simulation::run_captured(world, capture, &mut Silent).unwrap();
    (outcome, captured, file)
}

#[test]
fn a_run_is_captured_whole_and_not_changed() {
    let world = world();
    let (outcome, captured, file) = captured(&world);
    let plain = simulation::run(&world, &mut Silent).unwrap();
    assert_eq!(outcome.to_json(), plain.to_json());
    let (_, _, packets) = read(&file);
    assert_eq!((captured.packets, captured.left_out), (packets.len() as u64, 0));
    // QUIC's acknowledgements are counted, but are no packets here.
    let bytes = packets.iter().map(|packet| u64::from(packet.length)).sum::<u64>();
    let acks = (outcome.wire.bytes - bytes) as f64 / outcome.wire.bytes as f64;
    assert!((0.002..0.03).contains(&acks), "{acks}");
    assert!(packets.is_sorted_by_key(|packet| packet.micros));
    assert!(packets[0].micros < 20_000 && packets[packets.len() - 1].micros > 2_000_000);
    let lost = packets.iter().filter(|packet| {
        let comment = packet.comment.as_deref();
        comment.is_some_and(|comment| comment.ends_with("dropped: lost on the way"))
    });
    let share = lost.count() as f64 / packets.len() as f64;
    assert!((share - 0.1).abs() < 0.03, "{share}");
    for packet in &packets {
        let is_frames = |comment: &String| comment.starts_with("dropped");
        if packet.comment.as_ref().is_none_or(is_frames) {
            let mut frames = Bytes::copy_from_slice(&packet.kept[28..]);
            while Frame::decode(&mut frames).unwrap().is_some() {}
            assert_eq!(packet.length as usize, packet.kept.len() + 29, "QUIC adds as much");
        }
    }
}

#[test]
fn the_same_seed_is_captured_in_the_same_bytes() {
    let bytes = |seed| captured(&World { seed, ..world() }).2.0.take();
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn links_are_named_both_ways_or_one() {
    let world = world();
    let named = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let links = links(&world, &names)?;
        Ok(links.into_iter().map(|(from, to)| format!("{from}>{to}")).collect::<Vec<_>>())
    };
    let both = Ok(vec!["a>b-1".to_owned(), "b-1>a".to_owned()]);
    assert_eq!(named(&["b-1-a"]), both);
    assert_eq!(named(&["a-b-1", "b-1>a"]), both);
    assert_eq!(named(&["b-1>a"]), Ok(vec!["b-1>a".to_owned()]));
    let unknown = "there is no link \"a-b1\"; did you mean \"a-b-1\"?";
    assert_eq!(named(&["a>b-1", "a-b1"]), Err(unknown.to_owned()));
    let flow = World { fidelity: Fidelity::Flow, ..world };
    let wanted = "fidelity \"flow\" has no packets to capture; set fidelity = \"packet\"";
    assert_eq!(links(&flow, &["a-b-1".into()]), Err(wanted.to_owned()));
}
