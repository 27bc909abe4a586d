//! Compose files on the disk.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::environment::read_env_file;
use super::fault::{ComposeError, Position};
use super::project::parse;
use super::report::Report;
use super::source::Source;
use super::{Context, Files, MAX_FILE_BYTES, Project};

/// The names that Compose looks for, best first.
const FILE_NAMES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// Real files.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> std::io::Result<String> {
        read_text(open(path)?)
    }

    fn read_bytes(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        read_bytes(open(path)?)
    }
}

/// A regular file: a pipe or a device could make the reader wait for ever.
fn open(path: &Path) -> std::io::Result<std::fs::File> {
    let file = std::fs::File::open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(Error::new(
            ErrorKind::InvalidInput,
            "it is not a regular file",
        )),
    }
}

/// The Compose file of a directory.
pub fn find_file(directory: &Path) -> Option<PathBuf> {
    let candidates = FILE_NAMES.iter().map(|name| directory.join(name));
    candidates.into_iter().find(|path| path.is_file())
}

/// Reads a Compose file, `-` meaning standard input. Variables come from `environment`, and below
/// that from a `.env` file beside the Compose file.
pub fn load(
    path: &Path,
    project: Option<&str>,
    namespace: Option<&str>,
    environment: &BTreeMap<String, String>,
) -> Result<Project, Vec<ComposeError>> {
    let name = path.display().to_string();
    let stdin = path == Path::new("-");
    let file = if stdin { "standard input" } else { &name };
    let whole = |error: Error| {
        let source = Source::new(file, "");
        let text = format!("cannot read {file}: {error}");
        vec![source.error(Position::default(), "", text)]
    };
    let (text, directory) = if stdin {
        (read_text(std::io::stdin().lock()).map_err(whole)?, None)
    } else {
        let text = Disk.read(path).map_err(whole)?;
        let full = std::path::absolute(path).map_err(whole)?;
        (text, full.parent().map(Path::to_path_buf))
    };
    let variables = match &directory {
        Some(directory) => with_dot_env(directory, environment)?,
        None => environment.clone(),
    };
    let context = Context {
        file,
        directory: directory.as_deref(),
        project,
        namespace,
        variables: &variables,
        files: &Disk,
    };
    parse(&text, &context)
}

/// The environment, and below it what `.env` sets.
fn with_dot_env(
    directory: &Path,
    environment: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Vec<ComposeError>> {
    let path = directory.join(".env");
    match Disk.read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(environment.clone()),
        read => variables(&path, read, environment),
    }
}

/// The environment, and below it what a file of `NAME=VALUE` lines sets.
pub fn read_variables(
    path: &Path,
    environment: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Vec<ComposeError>> {
    variables(path, Disk.read(path), environment)
}

fn variables(
    path: &Path,
    read: std::io::Result<String>,
    environment: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Vec<ComposeError>> {
    let name = path.display().to_string();
    let text = read.map_err(|error| {
        let text = format!("cannot read {name}: {error}");
        vec![Source::new(&name, "").error(Position::default(), "", text)]
    })?;
    let source = Source::new(&name, &text);
    let mut report = Report::new(&source);
    let mut variables = BTreeMap::new();
    read_env_file(&mut report, &text, false, environment, &mut variables);
    report.finish()?;
    variables.extend(environment.clone());
    Ok(variables)
}

fn read_bytes(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader
        .take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE_BYTES {
        let limit = MAX_FILE_BYTES / 1024;
        let text = format!("it has more than {limit} KiB");
        return Err(Error::new(ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

fn read_text(reader: impl Read) -> std::io::Result<String> {
    let bytes = read_bytes(reader)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = format!("it is not UTF-8 text: byte {at} is none");
        Error::new(ErrorKind::InvalidData, text)
    })
}
