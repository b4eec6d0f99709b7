//! What a relay counts, as Prometheus reads it.
//!
//! The machines keep plain counters; nothing is added up on the packet path. A scrape takes a
//! [`Snapshot`] of them and writes it as OpenMetrics text (prometheus-client). Labels are links
//! and reasons, never flows, so the number of lines is bounded by the number of neighbours.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode as encode_text;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tradewind_proto::link::{Counters, Quality};

/// What [`encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; `_total` is added to its name.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One metric with all its label values.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Without the `tradewind_` in front.
    pub name: &'static str,
    /// One sentence without a full stop.
    pub help: &'static str,
    /// What its numbers are.
    pub kind: Kind,
    /// By labels; none for a number that stands alone.
    pub samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Family {
    /// A counter without samples.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter, samples: Vec::new() }
    }

    /// A gauge without samples.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge, samples: Vec::new() }
    }

    /// With the number that stands alone.
    #[must_use]
    pub fn value(mut self, value: f64) -> Self {
        self.samples.push((Vec::new(), value));
        self
    }

    /// With a number for each value of one label.
    #[must_use]
    pub fn by<S: Into<String>>(
        mut self,
        label: &'static str,
        values: impl IntoIterator<Item = (S, f64)>,
    ) -> Self {
        let labelled = |(text, value): (S, f64)| (vec![(label, text.into())], value);
        self.samples.extend(values.into_iter().map(labelled));
        self
    }
}

/// What one link measured and counted.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSample {
    /// The other end.
    pub neighbour: String,
    /// Whether it carries packets.
    pub up: bool,
    /// What it measured.
    pub quality: Quality,
    /// What it counted.
    pub counters: Counters,
}

/// Everything that a scrape shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Every link; their families are made here.
    pub links: Vec<LinkSample>,
    /// The relay's own.
    pub families: Vec<Family>,
}

/// Counters of links: their field in [`Counters`], their name in metrics, what they count. The
/// destructuring keeps it complete: a counter that is not listed here does not compile.
macro_rules! link_counters {
    ($($field:ident $name:literal $help:literal,)*) => {
        /// [`Counters`] as the API shows them, under the same names.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct LinkCounters {
            $(#[doc = $help] pub $field: u64,)*
        }

        impl From<&Counters> for LinkCounters {
            fn from(&Counters { $($field,)* }: &Counters) -> Self {
                Self { $($field,)* }
            }
        }

        fn counter_families(links: &[LinkSample]) -> Vec<Family> {
            vec![$({
                let value = |link: &LinkSample| (link.neighbour.clone(), link.counters.$field as f64);
                Family::counter($name, $help).by("neighbour", links.iter().map(value))
            },)*]
        }
    };
}

link_counters! {
    data_tx "link_data_sent" "Data shards sent for the first time",
    parity_tx "link_parity_sent" "Parity shards sent",
    repeat_tx "link_repeats_sent" "Data shards sent again",
    report_tx "link_reports_sent" "Reports sent",
    probe_tx "link_probes_sent" "Heartbeats and probes sent",
    datagram_tx "link_datagrams_sent" "Datagrams sent",
    bytes_tx "link_sent_bytes" "Bytes of datagrams sent",
    payload_tx "link_payload_sent_bytes" "Payload bytes of data shards sent for the first time",
    expired_audio_tx "link_expired_audio" "Audio packets dropped before sending because they could not arrive in time",
    expired_video_tx "link_expired_video" "Video packets dropped before sending because they could not arrive in time",
    expired_bulk_tx "link_expired_bulk" "Bulk packets dropped before sending because they could not arrive in time",
    overflow_tx "link_queue_overflows" "Packets refused because the queue was full",
    forgotten_tx "link_data_forgotten" "Data shards whose group had to make room for newer ones before it was repaired",
    data_first_rx "link_data_received_first" "Data shards that arrived by their first sending",
    repeated_rx "link_data_received_repeated" "Data shards that arrived by a repeat first",
    decoded_rx "link_data_recovered" "Data shards rebuilt by decoding",
    lost_rx "link_data_lost" "Data shards that never came and cannot come any more",
    late_rx "link_data_late" "Data shards that came too late for their deadline",
    duplicate_rx "link_duplicates_received" "Shards that were there already",
    parity_rx "link_parity_received" "Parity shards received",
    report_rx "link_reports_received" "Reports received",
    probe_rx "link_probes_received" "Heartbeats and probes received",
    datagram_rx "link_datagrams_received" "Datagrams received",
    bytes_rx "link_received_bytes" "Bytes of datagrams received",
    malformed_rx "link_malformed_received" "Frames or packets that could not be read",
    stale_rx "link_stale_received" "Shards of groups that are gone or beyond the limits",
    suspects "link_suspects" "Times that the outgoing direction became suspect",
    downs "link_downs" "Times that the outgoing direction went down",
}

fn gauge_families(links: &[LinkSample]) -> Vec<Family> {
    type Read = fn(&LinkSample) -> Option<f64>;
    let gauges: [(&str, &str, Read); 16] = [
        ("link_up", "Whether the link carries packets", |link| Some(f64::from(u8::from(link.up)))),
        ("link_rtt_seconds", "Smoothed round-trip time", |link| {
            link.quality.rtt.map(|rtt| rtt.as_secs_f64())
        }),
        ("link_rtt_min_seconds", "Least round-trip time of late", |link| {
            link.quality.min_rtt.map(|rtt| rtt.as_secs_f64())
        }),
        ("link_jitter_sent_seconds", "Deviation of the delay, outgoing", |link| {
            Some(link.quality.jitter_tx.as_secs_f64())
        }),
        ("link_jitter_received_seconds", "Deviation of the delay, incoming", |link| {
            Some(link.quality.jitter_rx.as_secs_f64())
        }),
        ("link_queueing_seconds", "Delay beyond the least, outgoing", |link| {
            Some(link.quality.queueing_tx.as_secs_f64())
        }),
        ("link_loss_sent_ratio", "Share of datagrams lost before repair, outgoing", |link| {
            Some(f64::from(link.quality.loss_tx))
        }),
        ("link_loss_received_ratio", "Share of datagrams lost before repair, incoming", |link| {
            Some(f64::from(link.quality.loss_rx))
        }),
        ("link_burst_sent_packets", "Mean length of a burst of losses, outgoing", |link| {
            Some(f64::from(link.quality.burst_tx))
        }),
        ("link_group_packets", "Packets of the newest group repaired together", |link| {
            link.quality.protection_tx.map(|group| group.packets.into())
        }),
        ("link_group_parity", "Parity shards sent along with the newest group", |link| {
            link.quality.protection_tx.map(|group| group.parity.into())
        }),
        ("link_group_rounds", "How often the newest group could be helped", |link| {
            link.quality.protection_tx.map(|group| group.rounds.into())
        }),
        (
            "link_redundancy_sent_ratio",
            "Repeats and parity per byte of data, last second",
            |link| Some(f64::from(link.quality.redundancy_tx)),
        ),
        ("link_rate_bits_per_second", "What the pacer allows", |link| {
            Some(link.quality.rate_bps as f64)
        }),
        ("link_capacity_bits_per_second", "What the link was found to carry at most", |link| {
            link.quality.capacity_bps.map(|bps| bps as f64)
        }),
        ("link_load_bits_per_second", "What the link carries", |link| {
            Some(link.quality.load_bps as f64)
        }),
    ];
    let family = |(name, help, read): (&'static str, &'static str, Read)| {
        let sample = |link: &LinkSample| Some((link.neighbour.clone(), read(link)?));
        Family::gauge(name, help).by("neighbour", links.iter().filter_map(sample))
    };
    gauges.map(family).into()
}

/// The snapshot as OpenMetrics text.
pub fn encode(snapshot: Snapshot) -> String {
    let mut families = snapshot.families;
    families.extend(gauge_families(&snapshot.links));
    families.extend(counter_families(&snapshot.links));
    let mut registry = Registry::with_prefix("tradewind");
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = encode_text(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in self.0.iter().filter(|family| !family.samples.is_empty()) {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.samples {
                if labels.is_empty() {
                    number(&mut metric, family.kind, *value)?;
                } else {
                    number(&mut metric.encode_family(labels)?, family.kind, *value)?;
                }
            }
        }
        Ok(())
    }
}

fn number(metric: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> Result<(), std::fmt::Error> {
    match kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, _, f64>(&value, None),
        Kind::Gauge => metric.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tradewind_proto::link::Protection;

    use super::*;

    #[test]
    fn a_snapshot_becomes_text() {
        let quality = Quality {
            rtt: Some(Duration::from_millis(40)),
            loss_tx: 0.25,
            burst_tx: 1.5,
            queueing_tx: Duration::from_millis(7),
            protection_tx: Some(Protection { packets: 24, parity: 5, rounds: 2 }),
            redundancy_tx: 0.375,
            rate_bps: 80_000_000,
            ..Quality::default()
        };
        let counters = Counters {
            data_tx: 12_345_678_901,
            decoded_rx: 3,
            expired_audio_tx: 1,
            expired_video_tx: 20,
            expired_bulk_tx: 300,
            suspects: 4,
            downs: 2,
            ..Counters::default()
        };
        let link = LinkSample { neighbour: "sgp".into(), up: true, quality, counters };
        let drops = Family::counter("dropped", "Packets that went nowhere");
        let snapshot = Snapshot {
            links: vec![link],
            families: vec![
                Family::gauge("members", "Relays in the overlay").value(4.0),
                drops.by("reason", [("no_route", 2.0), ("refused", 0.0)]),
                Family::gauge("empty", "Nothing").by("x", Vec::<(String, f64)>::new()),
            ],
        };
        let text = encode(snapshot);
        for line in [
            "# TYPE tradewind_members gauge",
            "tradewind_members 4.0",
            "# HELP tradewind_dropped Packets that went nowhere",
            "tradewind_dropped_total{reason=\"no_route\"} 2.0",
            "tradewind_link_up{neighbour=\"sgp\"} 1.0",
            "tradewind_link_rtt_seconds{neighbour=\"sgp\"} 0.04",
            "tradewind_link_loss_sent_ratio{neighbour=\"sgp\"} 0.25",
            "tradewind_link_burst_sent_packets{neighbour=\"sgp\"} 1.5",
            "tradewind_link_queueing_seconds{neighbour=\"sgp\"} 0.007",
            "tradewind_link_group_packets{neighbour=\"sgp\"} 24.0",
            "tradewind_link_group_parity{neighbour=\"sgp\"} 5.0",
            "tradewind_link_group_rounds{neighbour=\"sgp\"} 2.0",
            "tradewind_link_redundancy_sent_ratio{neighbour=\"sgp\"} 0.375",
            "tradewind_link_rate_bits_per_second{neighbour=\"sgp\"} 80000000.0",
            "tradewind_link_expired_audio_total{neighbour=\"sgp\"} 1.0",
            "tradewind_link_expired_video_total{neighbour=\"sgp\"} 20.0",
            "tradewind_link_expired_bulk_total{neighbour=\"sgp\"} 300.0",
            "tradewind_link_suspects_total{neighbour=\"sgp\"} 4.0",
            "tradewind_link_downs_total{neighbour=\"sgp\"} 2.0",
            "tradewind_link_data_sent_total{neighbour=\"sgp\"} 12345678901.0",
            "tradewind_link_data_recovered_total{neighbour=\"sgp\"} 3.0",
            "# EOF",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("empty") && !text.contains("rtt_min"));
    }
}
