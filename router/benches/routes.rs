//! What routes cost to compute: `cargo bench -p tradewind-router`.
//!
//! Full meshes, and above 64 relays also the mesh that `mesh = "auto"` makes (24 links each);
//! random places on a globe, delays of a fibre with random detours, each direction its own.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tradewind_proto::statement::{Body, LinkStatement, NodeState, SignedStatement, Statement};
use tradewind_proto::units::{Incarnation, PolicyId, PopId, Timestamp};
use tradewind_router::explain::Target;
use tradewind_router::lsdb::{Labels, Lsdb};
use tradewind_router::routes::{Router, RouterConfig};

const NOON: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn name(at: usize) -> PopId {
    format!("pop-{at}").parse().expect("a valid name")
}

/// Places on a square of 20,000 km, as a globe is not needed here.
fn places(len: usize, rng: &mut SmallRng) -> Vec<(f64, f64)> {
    (0..len).map(|_| (rng.random::<f64>() * 2e4, rng.random::<f64>() * 1e4)).collect()
}

fn distance(a: (f64, f64), b: (f64, f64)) -> f64 {
    (a.0 - b.0).hypot(a.1 - b.1)
}

/// Whom relay `own` has links to: all, or the nearest 16 and 8 others.
fn neighbours(own: usize, places: &[(f64, f64)], full: bool, rng: &mut SmallRng) -> Vec<usize> {
    let mut others: Vec<usize> = (0..places.len()).filter(|&other| other != own).collect();
    if full {
        return others;
    }
    let far = |other: usize| distance(places[own], places[other]);
    others.sort_by(|&a, &b| far(a).total_cmp(&far(b)));
    let mut chosen: Vec<usize> = others.drain(..16).collect();
    (0..8).for_each(|_| chosen.push(others.swap_remove(rng.random_range(0..others.len()))));
    chosen
}

fn link(from: (f64, f64), to: (f64, f64), target: usize, rng: &mut SmallRng) -> LinkStatement {
    // 200 km a millisecond; routes on the ground are 1.2 to 2.5 times as long.
    let delay_ms = distance(from, to) / 200.0 * rng.random_range(1.2..2.5) + 0.3;
    LinkStatement {
        to: name(target).key(),
        up: true,
        delay_micros: (delay_ms * 1_000.0) as i32,
        jitter: Duration::from_micros(rng.random_range(0..2_000)),
        rtt: Duration::from_secs_f64(delay_ms / 500.0),
        loss: if rng.random_bool(0.1) { rng.random_range(0.0..0.05) } else { 0.0 },
        burst: 1.0,
        capacity_kbps: 0,
        load_kbps: 0,
        cost: Duration::ZERO,
        max_packet: 1_402,
    }
}

fn statement(at: usize, seq: u32, mut links: Vec<LinkStatement>) -> (SignedStatement, Statement) {
    links.sort_by_key(|link| link.to);
    let state = NodeState { links, ..NodeState::default() };
    let statement =
        Statement { origin: name(at), incarnation: Incarnation(1), seq, body: Body::Full(state) };
    (SignedStatement::new(Bytes::new(), [0; 64]), statement)
}

fn tell(lsdb: &mut Lsdb, (signed, statement): (SignedStatement, Statement)) {
    lsdb.insert(signed, Arc::new(statement), &Labels::default(), NOON).expect("a newer statement");
}

fn overlay(len: usize, full: bool) -> (Lsdb, Vec<Vec<LinkStatement>>) {
    let mut rng = SmallRng::seed_from_u64(1);
    let places = places(len, &mut rng);
    let mut linked = vec![vec![false; len]; len];
    let links = (0..len).flat_map(|own| {
        let others = neighbours(own, &places, full, &mut rng);
        others.into_iter().map(move |other| (own, other))
    });
    for (own, other) in links {
        (linked[own][other], linked[other][own]) = (true, true);
    }
    let mut lsdb = Lsdb::new(name(0));
    let mut said = Vec::new();
    for own in 0..len {
        let others = (0..len).filter(|&other| linked[own][other]);
        let links: Vec<_> =
            others.map(|other| link(places[own], places[other], other, &mut rng)).collect();
        tell(&mut lsdb, statement(own, 1, links.clone()));
        said.push(links);
    }
    (lsdb, said)
}

fn router(lsdb: &Lsdb) -> Router {
    let mut router = Router::new(name(0), RouterConfig::default());
    router.update(lsdb, NOON);
    router
}

fn routes(c: &mut Criterion) {
    let mut group = c.benchmark_group("routes");
    group.sample_size(20).measurement_time(Duration::from_secs(2));
    for (len, full) in [(50, true), (200, true), (200, false), (1_000, false)] {
        let (mut lsdb, said) = overlay(len, full);
        let mesh = format!("{len} PoPs, {}", if full { "full mesh" } else { "auto mesh" });
        let mut fresh = router(&lsdb);
        // Primary, backup and detours to all, on a graph that is up to date.
        group.bench_function(BenchmarkId::new("all", &mesh), |b| {
            b.iter(|| fresh.update(black_box(&lsdb), NOON));
        });
        group.bench_function(BenchmarkId::new("from nothing", &mesh), |b| {
            b.iter(|| router(black_box(&lsdb)));
        });
        let mut seq = 1;
        group.bench_function(BenchmarkId::new("one changed link", &mesh), |b| {
            b.iter(|| {
                seq += 1;
                let mut links = said[len / 2].clone();
                links[3].delay_micros += seq as i32 % 64;
                tell(&mut lsdb, statement(len / 2, seq, links));
                fresh.update(&lsdb, NOON);
            });
        });
        let all: Vec<Target> = (1..len).step_by(len / 20).map(|at| Target::Pop(name(at))).collect();
        group.bench_function(BenchmarkId::new("explanations of 20 routes", &mesh), |b| {
            b.iter(|| {
                all.iter()
                    .map(|to| fresh.explain(PolicyId::NONE, to, NOON).alternates.len())
                    .sum::<usize>()
            });
        });
        for at in (1..len).step_by(len / 20) {
            fresh.want_pair(PolicyId::NONE, name(at).key());
        }
        group.bench_function(BenchmarkId::new("all and 20 disjoint pairs", &mesh), |b| {
            b.iter(|| fresh.update(&lsdb, NOON));
        });
    }
    group.finish();
}

criterion_group!(benches, routes);
criterion_main!(benches);
