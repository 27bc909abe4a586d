//! `dunlin up`

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use dunlin_api::Exit;
use dunlin_api::client::Host;
use dunlin_node::handover::{HOLD, MAX_HOLD};
use dunlin_node::{ClusterError, DnsChoice, Profile, UpConfig, UpError};
use dunlin_state::model::{Cidr, RuntimeKind};
use tracing_subscriber::EnvFilter;

use crate::args::Global;
use crate::context::{default_data_dir, default_socket};
use crate::failure::Failure;
use crate::words;

/// Threads of the daemon: it waits for the network and disks, and computes little. Two let one
/// serve while the other decides; more would only cost memory on small hosts.
const WORKERS: usize = 2;

/// Words of `dunlin up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Where the node keeps its key, its state and its workloads
    /// [default: /var/lib/dunlin as root, else ~/.local/share/dunlin]
    #[arg(long, value_name = "DIRECTORY", env = "DUNLIN_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Name of this node [default: the host's name]
    #[arg(long)]
    pub name: Option<String>,
    /// The address at which others reach this node [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub advertise: Option<IpAddr>,
    /// Membership uses this port (UDP), the control plane the next (UDP and TCP), connections to
    /// replicas the one after that (UDP)
    #[arg(long, default_value_t = 7400, value_name = "BASE")]
    pub port: u16,
    /// Where the API listens [default: where commands look for it: unix:///run/dunlin/api.sock as
    /// root, else in the user's runtime directory; with another --data-dir, api.sock in it]
    #[arg(long, value_name = "URL")]
    pub api: Option<String>,
    /// Let the members of this group use the API's socket, besides root and this user
    #[arg(long, value_name = "NAME")]
    pub api_group: Option<String>,
    /// Also serve the API here, over TLS, to holders of certificates (`dunlin context add`)
    #[arg(long, value_name = "ADDR:PORT")]
    pub api_listen: Option<SocketAddr>,
    /// Join the cluster of this ticket, or of the ticket in this file
    #[arg(
        long,
        value_name = "TICKET",
        env = "DUNLIN_TICKET",
        hide_env_values = true
    )]
    pub join: Option<String>,
    /// What starts replicas here
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Auto)]
    pub runtime: RuntimeChoice,
    /// A label of this node
    #[arg(long, value_name = "KEY=VALUE", value_parser = words::pair)]
    pub label: Vec<(String, String)>,
    /// How patient membership is
    #[arg(long, value_enum, default_value_t = ProfileChoice::Lan)]
    pub profile: ProfileChoice,
    /// Do not look for peers on the local network
    #[arg(long)]
    pub no_mdns: bool,
    /// Give services virtual addresses of this network of 65,536 addresses, the same on all nodes
    /// [default: 10.93.0.0/16; without CAP_NET_ADMIN, a part of 127.0.0.0/8]
    #[arg(long, value_name = "CIDR")]
    pub vip_cidr: Option<Cidr>,
    /// When this daemon stops, hold its listening sockets so long for the next one of the same data
    /// directory: clients wait and are not refused; 0s to refuse at once [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = hold)]
    pub hand_over: Option<Duration>,
    /// Answer DNS queries here, over UDP and TCP; `off` for nowhere [default: port 53 of the first
    /// virtual address where that is permitted, else 127.0.0.1:5300]
    #[arg(long, value_name = "ADDR:PORT", value_parser = dns_choice)]
    pub dns: Option<DnsChoice>,
    /// The domain of service names [default: dunlin.internal]
    #[arg(long, value_name = "DOMAIN")]
    pub dns_suffix: Option<String>,
    /// Ask this resolver about other names; may be given again [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "ADDR", value_parser = upstream)]
    pub upstream_dns: Vec<SocketAddr>,
    /// Move a damaged state file aside and fetch the state from peers
    #[arg(long)]
    pub recover: bool,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,dunlin_core=debug
    #[arg(
        long,
        default_value = "info",
        env = "DUNLIN_LOG",
        value_name = "FILTER"
    )]
    pub log_level: String,
}

/// Reads an address with a port, or `off`.
fn hold(text: &str) -> Result<Duration, String> {
    let time = words::duration(text)?;
    match time <= MAX_HOLD {
        true => Ok(time),
        false => Err(format!("at most {} s", MAX_HOLD.as_secs())),
    }
}

fn dns_choice(text: &str) -> Result<DnsChoice, String> {
    if text == "off" {
        return Ok(DnsChoice::Off);
    }
    let wrong = "use an address and a port such as 127.0.0.1:5300 or [::1]:5300, or off";
    text.parse()
        .map(DnsChoice::At)
        .map_err(|_not| wrong.to_owned())
}

/// Reads the address of a resolver, with a port if it is not 53.
fn upstream(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    alone
        .or_else(|_more| text.parse())
        .map_err(|_not| "use an address such as 9.9.9.9 or 192.168.1.1:5353".to_owned())
}

/// A choice of runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeChoice {
    /// Host processes only
    Process,
    /// Docker or Podman only
    Docker,
    /// Both, where they work
    Auto,
}

/// A choice of timing presets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileChoice {
    /// Hosts on one network, round trips under 50 ms
    Lan,
    /// Hosts across the internet, round trips up to 500 ms
    Wan,
    /// Daemons on one host, for demos and tests
    Local,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// Runs the daemon until it is told to stop.
pub fn run(args: UpArgs, global: &Global) -> Result<Exit, Failure> {
    log_to_stderr(&args)?;
    let config = config(args, global)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|source| Failure::System {
            message: "cannot start threads".to_owned(),
            source,
        })?;
    let ended = runtime.block_on(dunlin_node::run(config));
    ended.map_err(failure)?;
    Ok(Exit::Ok)
}

/// Words that make no sense and a cluster that is not ours have exit codes of their own.
fn failure(error: UpError) -> Failure {
    let message = error.to_string();
    match error {
        UpError::Ticket(_)
        | UpError::TicketFile { .. }
        | UpError::NoTicketFile(_)
        | UpError::Name(_)
        | UpError::Suffix(_)
        | UpError::Vips(_) => Failure::usage(message),
        UpError::Cluster(ClusterError::Foreign { .. }) => Failure::Refused {
            message,
            hint: None,
        },
        _ => Failure::Ended(message),
    }
}

fn config(args: UpArgs, global: &Global) -> Result<UpConfig, Failure> {
    // `--host` says to the daemon what it says to commands, so that one DUNLIN_HOST serves both.
    let api = match args.api.as_deref().map(str::parse).transpose()? {
        Some(Host::Tcp(_)) => {
            return Err(Failure::usage(
                "--api is a Unix socket; for other hosts the API is served with --api-listen ADDR:PORT",
            ));
        }
        Some(Host::Unix(path)) => Some(path),
        // A cluster that this user asks from afar is no place for a socket.
        None => match global.host().map(str::parse).transpose()? {
            Some(Host::Unix(path)) => Some(path),
            Some(Host::Tcp(_)) | None => None,
        },
    };
    let api = match api {
        Some(path) => path,
        None => match &args.data_dir {
            // A second daemon of the same user must not fight for the first one's socket.
            Some(directory) if *directory != default_data_dir() => std::path::absolute(directory)
                .map_err(|source| Failure::System {
                    message: format!("cannot resolve {}", directory.display()),
                    source,
                })?
                .join("api.sock"),
            Some(_) | None => default_socket(),
        },
    };
    let mut labels = BTreeMap::new();
    for (key, value) in args.label {
        if labels.insert(key.clone(), value).is_some() {
            return Err(Failure::usage(format!("--label {key} is given twice")));
        }
    }
    Ok(UpConfig {
        dns: args.dns.unwrap_or_default(),
        upstream_dns: args.upstream_dns,
        vip_cidr: args.vip_cidr,
        hand_over: args.hand_over.unwrap_or(HOLD),
        dns_suffix: args.dns_suffix,
        data_dir: args.data_dir.unwrap_or_else(default_data_dir),
        name: args.name,
        advertise: args.advertise,
        port: args.port,
        api: Some(api),
        api_group: args.api_group,
        api_listen: args.api_listen,
        join: args.join.filter(|ticket| !ticket.is_empty()),
        runtime: match args.runtime {
            RuntimeChoice::Process => RuntimeKind::Process,
            RuntimeChoice::Docker => RuntimeKind::Docker,
            RuntimeChoice::Auto => RuntimeKind::Auto,
        },
        labels,
        profile: match args.profile {
            ProfileChoice::Lan => Profile::Lan,
            ProfileChoice::Wan => Profile::Wan,
            ProfileChoice::Local => Profile::Local,
        },
        mdns: !args.no_mdns,
        recover: args.recover,
    })
}

/// A bare level is about Dunlin's own words; of the libraries below only warnings are of use to an
/// operator, unless everything is asked for.
fn filter(level: &str) -> String {
    match level {
        "off" | "error" | "warn" | "trace" => level.to_owned(),
        "info" | "debug" => format!("warn,dunlin={level}"),
        filter => filter.to_owned(),
    }
}

fn log_to_stderr(args: &UpArgs) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter(&args.log_level))
        .map_err(|error| Failure::usage(format!("--log-level: {error}")))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match args.log_format {
        LogFormat::Text => {
            let choice = anstream::AutoStream::choice(&io::stderr());
            log.with_ansi(choice != anstream::ColorChoice::Never).init();
        }
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn read(line: &str) -> Result<UpConfig, Failure> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        match cli.command {
            Command::Up(args) => config(*args, &cli.global),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_become_a_configuration() {
        let config = read(
            "dunlin up --data-dir /d --name n1 --advertise 10.0.0.1 --port 7500 \
             --api unix:///d/x.sock --join t --runtime docker --label a=b --label c= \
             --profile wan --no-mdns --recover --dns off --dns-suffix prod.example \
             --upstream-dns 9.9.9.9 --upstream-dns [::1]:5353",
        );
        let config = config.unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/d"));
        assert_eq!(config.name.as_deref(), Some("n1"));
        assert_eq!(config.advertise, Some([10, 0, 0, 1].into()));
        assert_eq!(config.port, 7500);
        assert_eq!(config.api, Some(PathBuf::from("/d/x.sock")));
        assert_eq!(config.join.as_deref(), Some("t"));
        assert_eq!(config.runtime, RuntimeKind::Docker);
        assert_eq!(config.labels["a"], "b");
        assert_eq!(config.labels["c"], "");
        assert_eq!(config.profile, Profile::Wan);
        assert!(!config.mdns && config.recover);
        assert_eq!(config.dns, DnsChoice::Off);
        assert_eq!(config.dns_suffix.as_deref(), Some("prod.example"));
        let upstreams = ["9.9.9.9:53", "[::1]:5353"].map(|a| a.parse().unwrap());
        assert_eq!(config.upstream_dns, upstreams);
    }

    #[test]
    fn levels_become_filters_that_are_understood() {
        for (level, shown) in [
            ("info", "warn,dunlin=info"),
            ("trace", "trace"),
            ("info,quinn=debug", "info,quinn=debug"),
        ] {
            assert_eq!(filter(level), shown);
            assert!(EnvFilter::try_new(filter(level)).is_ok());
        }
    }

    #[test]
    fn defaults() {
        let config = read("dunlin up").unwrap();
        assert_eq!(config.data_dir, default_data_dir());
        assert_eq!(config.port, 7400);
        assert_eq!(config.runtime, RuntimeKind::Auto);
        assert_eq!(config.profile, Profile::Lan);
        assert_eq!(config.dns, DnsChoice::Auto);
        let at = read("dunlin up --dns 127.0.0.1:5300").unwrap().dns;
        assert_eq!(at, DnsChoice::At("127.0.0.1:5300".parse().unwrap()));
        assert!(config.mdns && !config.recover);
    }

    #[test]
    fn a_second_daemon_has_a_socket_of_its_own() {
        if std::env::var_os("DUNLIN_HOST").is_none() {
            let config = read("dunlin up --data-dir /second").unwrap();
            assert_eq!(config.api, Some(PathBuf::from("/second/api.sock")));
        }
        let config = read("dunlin up --data-dir /second -H unix:///a.sock").unwrap();
        assert_eq!(config.api, Some(PathBuf::from("/a.sock")));
    }

    #[test]
    fn words_that_contradict_each_other_are_refused() {
        for line in [
            "dunlin up --label a=1 --label a=2",
            "dunlin up --api tcp://1.2.3.4:5",
        ] {
            assert_eq!(read(line).unwrap_err().exit(), Exit::Usage, "{line}");
        }
    }
}
