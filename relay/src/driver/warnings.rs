//! What the operator should know for as long as it holds: what the host grants is too little, or a
//! reload could not take over everything.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::socket::WANTED_BUFFER;
use crate::config::Config;
use crate::node::edge::EdgeLimits;

/// A sentence for each that holds.
#[derive(Default)]
pub struct Warnings {
    /// Of [`small_buffers`].
    pub buffers: Option<String>,
    /// Of [`few_descriptors`].
    pub descriptors: Option<String>,
    /// Of [`restart_needed`].
    pub restart: Option<String>,
}

impl Warnings {
    /// All that hold.
    pub fn iter(&self) -> impl Iterator<Item = &String> {
        [&self.buffers, &self.descriptors, &self.restart].into_iter().flatten()
    }
}

/// What to say of keys that differ in the file and can't be changed while the relay runs.
pub fn restart_needed(keys: &[&str]) -> Option<String> {
    (!keys.is_empty()).then(|| {
        format!("the configuration was reloaded, but for what needs a restart: {}", keys.join(", "))
    })
}

/// Small receive buffers lose packets in bursts: what to say if the kernel granted one of
/// `granted` bytes.
pub fn small_buffers(granted: usize) -> Option<String> {
    (granted < WANTED_BUFFER).then(|| {
        format!(
            "the kernel gave the QUIC socket a receive buffer of {granted} bytes, {WANTED_BUFFER} \
             are wanted; run `sysctl -w net.core.rmem_max={WANTED_BUFFER} \
             net.core.wmem_max={WANTED_BUFFER}` and restart the relay"
        )
    })
}

/// Every flow that leaves here has a socket of its own, and so has every port of a tunnel: raises
/// the limit on descriptors as far as the system lets us. What to say if that is not enough.
pub fn few_descriptors(config: &Config) -> Option<String> {
    let listeners: u64 = config.tunnels.iter().map(|tunnel| u64::from(tunnel.listen.count)).sum();
    let wanted = EdgeLimits::default().egress_flows as u64 + listeners + 64;
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.filter(|current| *current < wanted)?;
    let possible = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit { current: Some(possible), maximum: limit.maximum };
    let granted = setrlimit(Resource::Nofile, raised).map_or(current, |()| possible);
    too_few(granted, wanted)
}

fn too_few(granted: u64, wanted: u64) -> Option<String> {
    (granted < wanted).then(|| {
        format!(
            "this process may open {granted} descriptors, {wanted} are wanted for as many flows; \
             raise the limit (`ulimit -n {wanted}`, or LimitNOFILE={wanted} in the systemd unit) \
             and restart the relay"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_little_is_told_with_the_command_that_helps() {
        assert_eq!(small_buffers(WANTED_BUFFER), None);
        let warning = small_buffers(212_992).expect("that is too small");
        assert!(warning.contains("212992 bytes, 4194304 are wanted"), "{warning}");
        assert!(warning.contains("sysctl -w net.core.rmem_max=4194304"), "{warning}");
        assert_eq!(too_few(10_064, 10_064), None);
        let warning = too_few(1_024, 10_064).expect("that is too few");
        assert!(warning.contains("may open 1024 descriptors"), "{warning}");
        assert!(warning.contains("`ulimit -n 10064`"), "{warning}");
    }
}
