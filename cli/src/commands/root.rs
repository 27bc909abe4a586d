//! `dunlin root`: the root key's file, on this host and on its way to a safe place.
//!
//! These commands read and write the data directory itself and ask no daemon: the root key never
//! travels through an API.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dunlin_api::Exit;
use dunlin_node::{ROOT_FILE, cluster_of, read_root, write_root};
use dunlin_trust::{ClusterId, SealedFile, SecretKey};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::context::default_data_dir;
use crate::failure::Failure;

/// Fewer characters are guessed in no time, whatever the key derivation costs.
const SHORTEST: usize = 8;

/// Words of `dunlin root`.
#[derive(Debug, Args)]
pub struct RootArgs {
    /// What to do with it
    #[command(subcommand)]
    pub action: RootAction,
    /// Where the node keeps its keys
    /// [default: /var/lib/dunlin as root, else ~/.local/share/dunlin]
    #[arg(long, global = true, value_name = "DIRECTORY", env = "DUNLIN_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// A file with the passphrase [default: DUNLIN_PASSPHRASE, else the terminal is asked]
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// What to do with the root key.
#[derive(Debug, Subcommand)]
pub enum RootAction {
    /// Seal the root key with a passphrase into a file, and take it off this host
    Export {
        /// The file to write; it must not exist
        file: PathBuf,
        /// Leave the root key on this host as well
        #[arg(long)]
        keep: bool,
    },
    /// Bring the root key back: at its next start the daemon of this host becomes an admin's
    Import {
        /// The file that export wrote
        file: PathBuf,
    },
    /// Say whether the root key is on this host
    Status,
}

/// Moves the root key, or says where it is.
pub fn run(args: &RootArgs) -> Result<Exit, Failure> {
    let dir = args.data_dir.clone().unwrap_or_else(default_data_dir);
    match &args.action {
        RootAction::Export { file, keep } => export(args, &dir, file, *keep),
        RootAction::Import { file } => import(args, &dir, file),
        RootAction::Status => status(&dir),
    }
}

fn export(args: &RootArgs, dir: &Path, file: &Path, keep: bool) -> Result<Exit, Failure> {
    let Some(root) = read_root(dir).map_err(ended)? else {
        return Err(Failure::Refused {
            message: format!("there is no root key in {}", dir.display()),
            hint: Some(
                "it is on the host where the cluster was founded, or was exported already"
                    .to_owned(),
            ),
        });
    };
    let passphrase = passphrase(args, true)?;
    let mut random = [0; 40];
    let source =
        fs::File::open("/dev/urandom").and_then(|mut f| io::Read::read_exact(&mut f, &mut random));
    source.map_err(system("cannot read /dev/urandom"))?;
    let sealed = SealedFile::seal(&passphrase, random, &root.seed()).map_err(ended)?;
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(system(&format!("cannot create {}", file.display())))?;
    out.write_all(sealed.as_bytes())
        .and_then(|()| out.sync_all())
        .map_err(system(&format!("cannot write {}", file.display())))?;
    // Only what can be read back may be taken away here.
    let written = fs::read_to_string(file).map_err(system("cannot read the file back"))?;
    let opened = SealedFile::open(&passphrase, &written).map_err(ended)?;
    if opened != root.seed() {
        return Err(Failure::Ended(
            "the file does not hold the root key; it was kept here".to_owned(),
        ));
    }
    let id = ClusterId::of(&root.public());
    if keep {
        say(&format!(
            "the root key of cluster {id} is in {} and on this host",
            file.display()
        ));
    } else {
        fs::remove_file(dir.join(ROOT_FILE)).map_err(system("cannot remove the root key here"))?;
        say(&format!(
            "the root key of cluster {id} is in {} and no longer on this host: keep the file and its passphrase apart from the cluster",
            file.display()
        ));
    }
    Ok(Exit::Ok)
}

fn import(args: &RootArgs, dir: &Path, file: &Path) -> Result<Exit, Failure> {
    let sealed =
        fs::read_to_string(file).map_err(system(&format!("cannot read {}", file.display())))?;
    let opened = SealedFile::open(&passphrase(args, false)?, &sealed)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let seed: [u8; 32] = opened
        .try_into()
        .map_err(|_other| Failure::usage("the file holds something else than a root key"))?;
    let root = SecretKey::from_seed(seed);
    let (theirs, ours) = (
        ClusterId::of(&root.public()),
        cluster_of(dir).map_err(ended)?,
    );
    if ours.is_none_or(|ours| ours != theirs) {
        let ours = ours.map_or("of no cluster yet".to_owned(), |id| {
            format!("of cluster {id}")
        });
        return Err(Failure::Refused {
            message: format!(
                "this is the root key of cluster {theirs}, and the node in {} is {ours}",
                dir.display()
            ),
            hint: Some(
                "join with a ticket first, or name the node's directory with --data-dir".to_owned(),
            ),
        });
    }
    write_root(dir, &root).map_err(ended)?;
    say("the root key is on this host: restart its daemon, which is an admin's from then on");
    Ok(Exit::Ok)
}

fn status(dir: &Path) -> Result<Exit, Failure> {
    let cluster = cluster_of(dir).map_err(ended)?;
    let name = cluster.map_or("none".to_owned(), |id| id.to_string());
    say(&format!("cluster:  {name}"));
    let here = match read_root(dir).map_err(ended)? {
        Some(_) => "on this host; `dunlin root export FILE` moves it to a safe place",
        None => "not on this host",
    };
    say(&format!("root key: {here}"));
    Ok(Exit::Ok)
}

fn passphrase(args: &RootArgs, twice: bool) -> Result<String, Failure> {
    let phrase = if let Some(file) = &args.passphrase_file {
        let text = fs::read_to_string(file);
        text.map_err(system(&format!("cannot read {}", file.display())))?
            .trim_end_matches(['\r', '\n'])
            .to_owned()
    } else if let Ok(phrase) = std::env::var("DUNLIN_PASSPHRASE") {
        phrase
    } else {
        let first = ask("Passphrase: ")?;
        if twice && ask("Once more: ")? != first {
            return Err(Failure::usage("the two passphrases differ"));
        }
        first
    };
    if twice && phrase.chars().count() < SHORTEST {
        let text = format!("a passphrase has at least {SHORTEST} characters");
        return Err(Failure::usage(text));
    }
    Ok(phrase)
}

/// Asks on the terminal, without showing what is typed.
fn ask(prompt: &str) -> Result<String, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(
            "no passphrase: give --passphrase-file FILE, set DUNLIN_PASSPHRASE, or use a terminal",
        ));
    }
    let before = tcgetattr(&stdin).map_err(|e| system("cannot ask the terminal")(e.into()))?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &hidden)
        .map_err(|e| system("cannot ask the terminal")(e.into()))?;
    anstream::eprint!("{prompt}");
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    let restored = tcsetattr(&stdin, OptionalActions::Now, &before);
    anstream::eprintln!();
    read.map_err(system("cannot read the passphrase"))?;
    restored.map_err(|e| system("cannot ask the terminal")(e.into()))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn say(text: &str) {
    anstream::println!("{text}");
}

fn ended(error: impl std::fmt::Display) -> Failure {
    Failure::Ended(error.to_string())
}

fn system(message: &str) -> impl FnOnce(io::Error) -> Failure {
    let message = message.to_owned();
    move |source| Failure::System { message, source }
}
