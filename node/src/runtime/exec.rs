//! A command that a person runs beside a replica: what is asked for, and the wires to that person.
//!
//! Nobody here knows where the person is. The wires are bounded, so that a command which prints
//! faster than it is read waits, and input that is not read is not taken.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Bytes of input or output at a time.
pub(super) const PIECE: usize = 16 * 1024;

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOrder {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Whether input comes.
    pub stdin: bool,
    /// Lines and columns of the terminal that it gets, if it gets one.
    pub terminal: Option<(u16, u16)>,
    /// Variables beyond those of the replica.
    pub environment: BTreeMap<String, String>,
    /// `user[:group]` instead of the replica's.
    pub user: Option<String>,
    /// A directory instead of the replica's.
    pub working_dir: Option<String>,
}

/// What a person sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Input.
    Bytes(Bytes),
    /// No more input comes.
    End,
    /// Lines and columns that the terminal has now.
    Resize(u16, u16),
}

/// What a command prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// On standard output, or on its terminal.
    Out(Bytes),
    /// On standard error.
    Err(Bytes),
}

/// The wires between a command and a person.
#[derive(Debug)]
pub struct Wires {
    /// What the person sends.
    pub input: mpsc::Receiver<ExecInput>,
    /// What the command prints.
    pub output: mpsc::Sender<ExecOutput>,
    /// Cancelled when the person has gone.
    pub cut: CancellationToken,
}

/// Why a command ended whose wires were cut.
pub(super) const CUT: &str = "nobody waits for it any more";
