//! Streams to a replica's node, through any node: for commands that people run beside replicas.
//!
//! A stream begins with an [`Opening`]: what is wanted, for whom, and by which right. The node that
//! was asked opens it to the one that it is about, over the control plane's connection, or to
//! itself through memory; [`StreamDesk`] serves both alike. A node serves another one only what
//! that one could have got by changing desired state: its certificate must allow it to write in the
//! namespace. Dropping either end ends what is done at the other.

mod desk;
mod exec;
pub(crate) mod frames;
mod volume;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use dunlin_api::{ErrorCode, ExecStart};
use dunlin_gossip::net::{Control, RpcError};
use dunlin_state::model::{NodeId, SlotId, VolumeId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::api::Failure;

pub(crate) use desk::{Desk, QUEUE, StreamDesk};

/// Bytes of an opening: the largest frame of a command, and certificates.
const MAX_OPENING: usize = 128 * 1024;

/// Bytes on the way between two parts of this node, in each direction.
const IN_MEMORY: usize = 64 * 1024;

/// What a node says when it has read an opening, and is about to act on it.
const TAKEN: u8 = 1;

/// Time to open a stream to another node.
const OPEN: Duration = Duration::from_secs(10);

/// Either end of a stream.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Either end of a stream, wherever the other one is.
pub(crate) type Stream = Box<dyn Duplex>;

/// What is wanted of a node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wish {
    /// A command beside a replica.
    Exec {
        /// Which replica.
        slot: SlotId,
        /// Which command.
        start: Box<ExecStart>,
    },
    /// Something with the data of a volume on that node.
    Volume {
        /// Which volume.
        volume: VolumeId,
        /// What.
        act: VolumeAct,
    },
}

/// What to do with the data of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VolumeAct {
    /// Send it as an archive.
    Export,
    /// Take an archive in its place.
    Import {
        /// Whether data that is there may go.
        force: bool,
    },
    /// Delete it.
    Remove,
    /// Begin with an empty one where there is none.
    Create,
}

impl Wish {
    /// Where whoever wants it must be allowed to write.
    fn namespace(&self) -> &str {
        match self {
            Self::Exec { slot, .. } => slot.service.namespace(),
            Self::Volume { volume, .. } => volume.namespace(),
        }
    }
}

/// How a stream begins.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opening {
    /// What is wanted.
    pub(crate) wish: Wish,
    /// For whom, in words.
    pub(crate) author: String,
    /// The certificates by which the asking node may, in base64; not needed within a node.
    pub(crate) chain: Option<String>,
}

/// A stream that somebody has opened to this node.
pub(crate) struct Visitor {
    /// Another node; this one itself when absent.
    pub(crate) from: Option<NodeId>,
    /// This end of it.
    pub(crate) stream: Stream,
}

/// Opens streams.
#[derive(Clone)]
pub(crate) struct Streams {
    pub(crate) node: NodeId,
    pub(crate) control: Control,
    pub(crate) desk: mpsc::Sender<Visitor>,
}

/// A node and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) address: Option<SocketAddr>,
}

impl Streams {
    /// Opens a stream to a node, and says what is wanted, until that was taken.
    ///
    /// The connection may turn out to be one with the node's life before, or the one of two that is
    /// given up. So what was lost before the node took it is tried once more; should only its word
    /// have been lost, then what it has begun ends with the first stream.
    pub(crate) async fn open(
        &self,
        to: &Destination,
        opening: &Opening,
    ) -> Result<Stream, Failure> {
        let opened = match self.try_open(to, opening).await {
            Err(NotOpened::Lost(_)) => {
                tracing::debug!(node = to.name, "a stream is opened again");
                self.try_open(to, opening).await
            }
            opened => opened,
        };
        opened.map_err(|(NotOpened::Lost(failure) | NotOpened::Failed(failure))| failure)
    }

    async fn try_open(&self, to: &Destination, opening: &Opening) -> Result<Stream, NotOpened> {
        let mut stream = match to.node == self.node {
            true => self.open_here()?,
            false => self.open_there(to).await?,
        };
        let told = async {
            write_opening(&mut stream, opening).await?;
            stream.read_u8().await
        };
        match tokio::time::timeout(OPEN, told).await {
            Ok(Ok(TAKEN)) => Ok(stream),
            Ok(Ok(_other)) => Err(unreachable(to, &"it speaks another protocol").into()),
            Ok(Err(error)) => Err(NotOpened::Lost(unreachable(to, &error))),
            Err(_elapsed) => Err(unreachable(to, &"it takes nothing").into()),
        }
    }

    fn open_here(&self) -> Result<Stream, Failure> {
        let (ours, theirs) = tokio::io::duplex(IN_MEMORY);
        let visitor = Visitor {
            from: None,
            stream: Box::new(theirs),
        };
        let busy = "this node has too many such streams open; try again";
        self.desk
            .try_send(visitor)
            .map_err(|_full| Failure::new(ErrorCode::Busy, busy))?;
        Ok(Box::new(ours))
    }

    async fn open_there(&self, to: &Destination) -> Result<Stream, NotOpened> {
        let Some(address) = to.address else {
            return Err(unreachable(to, &"its address is not known").into());
        };
        match self.control.open_stream(to.node, address, OPEN).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error @ RpcError::Disconnected) => Err(NotOpened::Lost(unreachable(to, &error))),
            // Also when the connection goes while it is asked for a stream.
            Err(error @ RpcError::Unavailable) => {
                let failure = Failure::new(ErrorCode::Busy, error.to_string());
                Err(NotOpened::Lost(failure))
            }
            Err(error) => Err(unreachable(to, &error).into()),
        }
    }
}

/// Why there is no stream.
enum NotOpened {
    /// It broke before the node took what is wanted.
    Lost(Failure),
    /// Trying again would not help.
    Failed(Failure),
}

impl From<Failure> for NotOpened {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Says which node could not be asked.
pub(crate) fn unreachable(to: &Destination, why: &dyn std::fmt::Display) -> Failure {
    let text = format!("cannot reach {}: {why}", to.name);
    Failure::new(ErrorCode::PeerUnreachable, text)
}

async fn write_opening(stream: &mut Stream, opening: &Opening) -> io::Result<()> {
    let bytes = serde_json::to_vec(opening)?;
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    stream.write_u32(length).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Reads what is wanted, and says that it was taken.
async fn take_opening(stream: &mut Stream) -> io::Result<Opening> {
    let opening = read_opening(stream).await?;
    stream.write_u8(TAKEN).await?;
    stream.flush().await?;
    Ok(opening)
}

async fn read_opening(stream: &mut Stream) -> io::Result<Opening> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > MAX_OPENING {
        return Err(io::Error::other("its first message is too long"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}
