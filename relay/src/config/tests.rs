//! The bad-input table of the configuration, sentence by sentence, and what a good file gives.

use proptest::prelude::*;

use super::*;

proptest! {
    /// Whatever is in the file: a configuration or one sentence, never a panic.
    #[test]
    fn no_file_makes_the_reader_panic(lines in prop::collection::vec(
        prop::sample::select(FRAGMENTS.to_vec()), 0..12,
    )) {
        let text = lines.concat();
        let overrides = Overrides::default();
        let path = Arc::new(PathBuf::from("fra.toml"));
        let result = Document::parse(path, &text, &overrides)
            .and_then(|document| check::config(&document, Path::new("/")));
        if let Err(error) = result {
            prop_assert!(!error.to_string().contains('\n'), "{}", error);
        }
    }
}

const FRAGMENTS: [&str; 20] = [
    "[node]\n",
    "[overlay]\n",
    "[identity]\n",
    "[[tunnel]]\n",
    "[[service]]\n",
    "[[policy]]\n",
    "id = \"a\"\n",
    "listen = \"127.0.0.1:1-65535\"\n",
    "listen = 1\n",
    "name = \"\"\n",
    "service = \"a@b@c\"\n",
    "location = [1e400, nan]\n",
    "mtu = 0xffff_ffff_ffff_ffff\n",
    "deadline = \"584542046091y\"\n",
    "peers = [\"\u{e9}:1\", []]\n",
    "ca = \"/dev/null\"\n",
    "tunnel = [1]\n",
    "node.id = {}\n",
    "[node.id]\n",
    "= \u{0} \"",
];

/// A directory with a configuration `fra.toml` and empty identity files, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let process = std::process::id();
        let path = std::env::temp_dir().join(format!("tradewind-config-{process}-{name}"));
        std::fs::create_dir_all(&path).unwrap();
        for file in ["ca.pem", "fra.pem", "fra.key"] {
            std::fs::write(path.join(file), "").unwrap();
        }
        Self(path)
    }

    fn load(&self, text: &str, set: &[&str]) -> Result<Config, ConfigError> {
        let path = self.0.join("fra.toml");
        std::fs::write(&path, text).unwrap();
        let set: Vec<String> = set.iter().map(|&flag| flag.into()).collect();
        let overrides = Overrides::new([], &set)?;
        Source::with_overrides(&path, overrides).load()
    }

    /// The sentence for `text`, with the directory's name cut out.
    fn refusal(&self, text: &str, set: &[&str]) -> String {
        let error = self.load(text, set).expect_err(text).to_string();
        error.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Five lines; what a test adds begins in line 6.
const BASE: &str = r#"node.id = "fra"
overlay.listen = "127.0.0.1:7400"
identity.ca = "ca.pem"
identity.cert = "fra.pem"
identity.key = "fra.key"
"#;

const FULL: &str = r#"
[node]
id = "fra"
location = [50.11, 8.68]

[overlay]
listen = "0.0.0.0:7400"
advertise = "203.0.113.5:7400"
peers = ["sgp.example.net:7400"]
mesh = "peers"
mtu = 1400

[identity]
ca = "ca.pem"
cert = "fra.pem"
key = "fra.key"

[admin]
listen = "127.0.0.1:7481"

[[service]]
name = "sfu-fra"
target = "127.0.0.1:5004"

[[tunnel]]
listen = "127.0.0.1:6000-6019"
service = "sfu-mad@mad"
class = "audio"
deadline = "150ms"
policy = "eu-only"
redundancy = "disjoint"

[[tunnel]]
listen = "[::1]:6000"
service = "sfu-fra"

[[policy]]
name = "eu-only"
allow_regions = ["EU"]
deny_pops = ["sgp"]
"#;

#[test]
fn a_full_file_is_read() {
    let config = Directory::new("full").load(FULL, &[]).unwrap();
    assert_eq!(config.node.id.as_str(), "fra");
    assert_eq!(config.node.location, Some((50.11, 8.68)));
    assert_eq!(config.overlay.advertise[0].as_str(), "203.0.113.5:7400");
    assert_eq!((config.overlay.mesh, config.overlay.mtu), (Mesh::Peers, Some(1400)));
    assert_eq!(config.admin.listen.port(), 7481);
    let [first, second] = &config.tunnels[..] else { panic!("{:?}", config.tunnels) };
    assert_eq!((first.listen.first.port(), first.listen.count), (6000, 20));
    assert_eq!(first.pop.as_ref().map(PopId::as_str), Some("mad"));
    assert_eq!((first.class, first.deadline), (Class::Audio, Duration::from_millis(150)));
    assert_eq!(first.redundancy, Redundancy::Disjoint);
    assert_eq!(config.policy_of(first).map(Policy::name), Some("eu-only"));
    assert_eq!(config.policies[0].rule().deny_pops[0].as_str(), "sgp");
    assert_eq!((second.class, second.deadline), (Class::Video, Duration::from_millis(300)));
    assert!(second.pop.is_none() && second.policy.is_none());
}

#[test]
fn what_is_left_out_has_a_default() {
    let config = Directory::new("default").load(BASE, &[]).unwrap();
    assert_eq!(config.overlay.advertise, ["127.0.0.1:7400".parse().unwrap()]);
    assert_eq!((config.overlay.mesh, config.overlay.mtu), (Mesh::Auto, None));
    assert_eq!(config.admin, Admin::default());
    assert_eq!(config.log, Log::default());
}

#[test]
fn printed_and_read_again_it_is_the_same() {
    let directory = Directory::new("print");
    for text in [FULL, BASE] {
        let config = directory.load(text, &[]).unwrap();
        let printed = config.to_toml();
        assert_eq!(directory.load(&printed, &[]).expect(&printed), config, "{printed}");
    }
}

#[test]
fn overrides_win_over_the_file() {
    let set = ["overlay.peers=sgp:1, mad:2", "node.location=1,-2.5", "overlay.mtu=1300"];
    let config = Directory::new("set").load(FULL, &set).unwrap();
    let peers: Vec<&str> = config.overlay.peers.iter().map(HostPort::as_str).collect();
    assert_eq!(peers, ["sgp:1", "mad:2"]);
    assert_eq!(config.node.location, Some((1.0, -2.5)));
    assert_eq!(config.overlay.mtu, Some(1300));
}

#[test]
fn bad_input_gets_one_sentence() {
    let directory = Directory::new("bad");
    for (text, sentence) in [
        ("[overlai]\n", "fra.toml:6: unknown key `overlai`; did you mean `overlay`?"),
        (
            "[admin]\nlitsen = \"\"\n",
            "fra.toml:7: unknown key `admin.litsen`; did you mean `listen`?",
        ),
        (
            "[identiti]\ncolour = 1\n",
            "fra.toml:6: unknown key `identiti`; did you mean `identity`?",
        ),
        (
            "[[tunnel]]\ntarget = \"\"\n",
            "fra.toml:7: unknown key `tunnel.target`; known are `listen`, `service`, `class`, `deadline`, `policy`, `redundancy`",
        ),
        (
            "[admin]\nlisten = 7480\n",
            "fra.toml:7: `admin.listen` is an integer but must be a string such as \"127.0.0.1:7400\"",
        ),
        (
            "[admin]\nlisten = \"7480\"\n",
            "fra.toml:7: `admin.listen`: \"7480\" is no address with a port; write it as \"0.0.0.0:7400\" or \"[::]:7400\"",
        ),
        (
            "tunnel = 5\n",
            "fra.toml:6: `tunnel` is an integer but must be a list of tables: write its name in double brackets on a line of its own",
        ),
        ("[admin\n", "fra.toml:6: not valid TOML: unclosed table, expected `]`"),
        (
            "[[tunnel]]\nservice = \"a\"\n",
            "fra.toml:6: `tunnel.listen` is missing; write listen = \"127.0.0.1:6004\" under this [[tunnel]]",
        ),
        (
            "[[tunnel]]\nlisten = \"127.0.0.1:1\"\nservice = \"a\"\n[[tunnel]]\nlisten = \"127.0.0.1:1\"\nservice = \"b\"\n",
            "fra.toml:10: `tunnel.listen`: 127.0.0.1:1 is taken by the tunnel at fra.toml:7 (127.0.0.1:1); two can't listen on one address, choose another port",
        ),
        (
            "[[tunnel]]\nlisten = \"127.0.0.1:6000-6010\"\nservice = \"a\"\n[[tunnel]]\nlisten = \"0.0.0.0:6010\"\nservice = \"b\"\n",
            "fra.toml:10: `tunnel.listen`: 0.0.0.0:6010 is taken by the tunnel at fra.toml:7 (127.0.0.1:6000-6010); two can't listen on one address, choose another port",
        ),
        (
            "[[tunnel]]\nlisten = \"127.0.0.1:7400\"\nservice = \"a\"\n",
            "fra.toml:7: `tunnel.listen`: 127.0.0.1:7400 is taken by overlay.listen (127.0.0.1:7400); two can't listen on one address, choose another port",
        ),
        (
            "[[tunnel]]\nlisten = \"127.0.0.1:1\"\nservice = \"a\"\npolicy = \"eu\"\n",
            "fra.toml:9: `tunnel.policy`: no policy is called \"eu\"; there is no [[policy]] in the file; add one with this name",
        ),
        (
            "[[tunnel]]\nlisten = \"127.0.0.1:1\"\nservice = \"a\"\npolicy = \"eu-olny\"\n[[policy]]\nname = \"eu-only\"\nallow_regions = [\"EU\"]\n",
            "fra.toml:9: `tunnel.policy`: no policy is called \"eu-olny\"; did you mean `eu-only`?",
        ),
        (
            "[[tunnel]]\nlisten = \"127.0.0.1:1\"\nservice = \"a\"\nclass = \"vidoe\"\n",
            "fra.toml:9: `tunnel.class`: \"vidoe\" is unknown; did you mean `video`?",
        ),
        (
            "[[tunnel]]\nlisten = \"127.0.0.1:1\"\nservice = \"a\"\ndeadline = \"17s\"\n",
            "fra.toml:9: `tunnel.deadline`: \"17s\" is not between 1ms and 16s, what a packet can carry",
        ),
        (
            "[[tunnel]]\nlisten = \"127.0.0.1:1\"\nservice = \"a\"\ndeadline = 300\n",
            "fra.toml:9: `tunnel.deadline` is an integer but must be a string such as \"300ms\"",
        ),
        (
            "[[tunnel]]\nlisten = \"127.0.0.1:1\"\nservice = \"a b\"\n",
            "fra.toml:8: `tunnel.service`: \"a b\" contains ' '; a name is made of A-Z, a-z, 0-9, '.', '_' and '-'",
        ),
        (
            "[[tunnel]]\nlisten = \"127.0.0.1:1-20\"\nservice = \"a\"\n[[service]]\nname = \"a\"\ntarget = \"127.0.0.1:5000-5009\"\n",
            "fra.toml:7: `tunnel.listen`: 127.0.0.1:1-20 has 20 ports but service \"a\" has 10; the ranges must be of the same size",
        ),
        (
            "[[service]]\nname = \"a\"\ntarget = \"127.0.0.1:1\"\n[[service]]\nname = \"a\"\ntarget = \"127.0.0.1:2\"\n",
            "fra.toml:10: `service.name`: \"a\" is taken by the one at fra.toml:7; give one of them another name",
        ),
        (
            "[[policy]]\nname = \"a\"\n",
            "fra.toml:7: `policy.name`: \"a\" has no list and would allow everything; add for example allow_regions = [\"EU\"]",
        ),
        (
            "[[policy]]\nname = \"a\"\ndeny_pops = [\"SGP\"]\n",
            "fra.toml:8: `policy.deny_pops`: \"SGP\" contains 'S'; a name is made of a-z, 0-9 and -",
        ),
        (
            "[[policy]]\nname = \"a\"\nallow_regions = []\n",
            "fra.toml:8: `policy.allow_regions`: is an empty list, which could mean all or nothing; leave it out",
        ),
        (
            "[log]\nformat = \"xml\"\n",
            "fra.toml:7: `log.format`: \"xml\" is unknown; known are `text`, `json`",
        ),
    ] {
        assert_eq!(directory.refusal(&format!("{BASE}{text}"), &[]), sentence, "{text}");
    }
}

#[test]
fn what_is_required_is_asked_for() {
    let directory = Directory::new("required");
    for (line, instead, sentence) in [
        (0, "", "fra.toml: `node.id` is missing; name this relay: write id = \"fra\" under [node]"),
        (
            0,
            "node.id = \"FRA\"",
            "fra.toml:1: `node.id`: \"FRA\" contains 'F'; a name is made of a-z, 0-9 and -",
        ),
        (
            1,
            "overlay.listen = \"0.0.0.0:7400\"",
            "fra.toml:2: `overlay.listen`: 0.0.0.0:7400 does not say where others reach this relay; add advertise = \"ADDRESS:7400\" under [overlay], with its public address or host name",
        ),
        (
            2,
            "",
            "fra.toml: `identity.ca` is missing; write ca = \"ca.pem\" under [identity]; `tradewind cert ca --out DIR` makes one",
        ),
        (
            4,
            "identity.key = \"mad.key\"",
            "fra.toml:5: `identity.key`: mad.key cannot be read (No such file or directory (os error 2)); check the path (relative ones start at the configuration file) or make it with `tradewind cert`",
        ),
    ] {
        let mut lines: Vec<&str> = BASE.lines().collect();
        lines[line] = instead;
        assert_eq!(directory.refusal(&lines.join("\n"), &[]), sentence);
    }
}

#[test]
fn a_bad_override_is_named_as_one() {
    assert_eq!(
        Directory::new("override").refusal(BASE, &["overlay.mtu=big"]),
        "--set overlay.mtu=big: `overlay.mtu` is \"big\" but must be a number of bytes such as 1452"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Source::with_overrides(Path::new("/nowhere/fra.toml"), Overrides::default()).load();
    assert_eq!(
        error.unwrap_err().to_string(),
        "/nowhere/fra.toml: cannot be read (No such file or directory (os error 2)); check the path given with --config"
    );
}

#[test]
fn only_what_a_reload_cannot_do_needs_a_restart() {
    let directory = Directory::new("restart");
    let before = directory.load(FULL, &[]).unwrap();
    let reloadable = FULL.replace("sgp.example.net", "mad.example.net").replace("150ms", "90ms");
    let after = directory.load(&reloadable, &[]).unwrap();
    assert_ne!(before, after);
    assert!(before.changes_needing_restart(&after).is_empty());
    let set = ["overlay.mtu=1300", "admin.listen=127.0.0.1:1"];
    let after = directory.load(FULL, &set).unwrap();
    assert_eq!(before.changes_needing_restart(&after), ["overlay.mtu", "admin.listen"]);
}

#[test]
fn identity_files_are_judged_with_their_place() {
    use crate::identity::{Issuer, NODE_DAYS};
    const NOW: u64 = 1_790_000_000;
    let directory = Directory::new("identity");
    let issuer = Issuer::generate(NOW).unwrap();
    let issue = |name: &str| {
        let subject = format!("tradewind://pop/{name}").parse().unwrap();
        issuer.issue(&subject, NOW, NODE_DAYS).unwrap()
    };
    let write = |file: &str, text: &str| std::fs::write(directory.0.join(file), text).unwrap();
    let (fra, mad) = (issue("fra"), issue("mad"));
    write("ca.pem", issuer.certificate());
    let judge = |certificate: &str, key: &str, now: u64| {
        write("fra.pem", certificate);
        write("fra.key", key);
        let result = directory.load(BASE, &[]).unwrap().load_identity(now);
        result
            .map_err(|error| error.to_string().replace(&format!("{}/", directory.0.display()), ""))
    };
    assert!(judge(&fra.certificate, &fra.key, NOW).is_ok());
    for (certificate, key, now, sentence) in [
        (
            &fra.certificate,
            &mad.key,
            NOW,
            "fra.toml:5: `identity.key`: fra.key is not the key of the certificate fra.pem; name the two files of one `tradewind cert node` run",
        ),
        (
            &mad.certificate,
            &mad.key,
            NOW,
            "fra.toml:1: `node.id`: \"fra\" is not the name in the certificate fra.pem, which is \"mad\"; write that name, or make a certificate with `tradewind cert node --id fra`",
        ),
        (
            &fra.certificate,
            &fra.key,
            NOW + 731 * 86_400,
            "fra.toml:4: `identity.cert`: fra.pem is refused: it expired 1 day(s) ago; make a new one with `tradewind cert node --ca DIR --id ID`",
        ),
    ] {
        assert_eq!(judge(certificate, key, now).unwrap_err(), sentence);
    }
    write("ca.pem", "");
    assert_eq!(
        judge(&fra.certificate, &fra.key, NOW).unwrap_err(),
        "fra.toml:3: `identity.ca`: ca.pem is no CA certificate (it holds no PEM certificate); name the ca.pem that `tradewind cert ca` wrote"
    );
}
