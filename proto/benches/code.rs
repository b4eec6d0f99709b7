//! What the erasure code costs beside the codec of the crate whose kernels it uses.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use reed_solomon_erasure::galois_8::ReedSolomon;
use tradewind_proto::link::code::{append_parity, rebuild};

const K: usize = 20;
const LOST: usize = 3;
const LEN: usize = 1200;

fn packets() -> Vec<Bytes> {
    (0..K).map(|row| Bytes::from(vec![row as u8 * 7 + 1; LEN])).collect()
}

fn encode(bench: &mut Criterion) {
    let packets = packets();
    let mut group = bench.benchmark_group("encode 20 x 1200");
    group.throughput(Throughput::Bytes((K * LEN) as u64));
    group.bench_function("one row", |b| {
        let mut out = BytesMut::with_capacity(2 * LEN);
        b.iter(|| {
            out.clear();
            append_parity(64, packets.iter().map(|p| &p[..]), &mut out);
            black_box(&out);
        });
    });
    group.bench_function("the crate's codec, one row", |b| {
        let codec = ReedSolomon::new(K, 1).unwrap();
        let mut shards: Vec<Vec<u8>> = packets.iter().map(|p| p.to_vec()).collect();
        shards.push(vec![0; LEN]);
        b.iter(|| codec.encode(black_box(&mut shards)).unwrap());
    });
    group.finish();
}

fn decode(bench: &mut Criterion) {
    let packets = packets();
    let mut group = bench.benchmark_group("rebuild 3 of 20 x 1200");
    group.throughput(Throughput::Bytes((K * LEN) as u64));
    group.bench_function("ours", |b| {
        let parity: Vec<(u8, Bytes)> = (64..)
            .take(LOST)
            .map(|row| {
                let mut out = BytesMut::new();
                append_parity(row, packets.iter().map(|p| &p[..]), &mut out);
                (row, out.freeze())
            })
            .collect();
        let data: Vec<Option<Bytes>> =
            packets.iter().enumerate().map(|(at, p)| (at >= LOST).then(|| p.clone())).collect();
        b.iter(|| black_box(rebuild(black_box(&data), &parity)).unwrap());
    });
    group.bench_function("the crate's codec", |b| {
        let codec = ReedSolomon::new(K, LOST).unwrap();
        let mut shards: Vec<Vec<u8>> = packets.iter().map(|p| p.to_vec()).collect();
        shards.resize(K + LOST, vec![0; LEN]);
        codec.encode(&mut shards).unwrap();
        let whole: Vec<Option<Vec<u8>>> =
            shards.into_iter().enumerate().map(|(at, s)| (at >= LOST).then_some(s)).collect();
        b.iter_batched(
            || whole.clone(),
            |mut shards| codec.reconstruct_data(black_box(&mut shards)).unwrap(),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
