//! A command beside a replica, with this process at its wires.

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Incoming;

use super::connection::{self, Driver};
use super::{Client, ClientError, Host};
use crate::{ExecFrame, FrameReader};

/// Frames that wait to be sent.
const WAITING: usize = 4;

/// Sends frames to a command. Dropping it ends the command, as dropping [`ExecOutput`] does.
#[derive(Debug)]
pub struct ExecInput(Sender<Bytes>);

/// Receives the frames of a command. Dropping it closes the connection, which ends the command.
#[derive(Debug)]
pub struct ExecOutput {
    host: Host,
    body: Incoming,
    reader: FrameReader,
    _driver: Driver,
}

impl ExecInput {
    /// Waits until there is room, and sends. False when the command has ended or the connection
    /// has gone, which [`ExecOutput::next`] tells.
    pub async fn send(&mut self, frame: &ExecFrame) -> bool {
        self.0.send_data(frame.encode()).await.is_ok()
    }
}

impl ExecOutput {
    /// The next frame; `None` at the end. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Result<Option<ExecFrame>, ClientError> {
        loop {
            let found = self.reader.take().map_err(|bad| ClientError::Garbled {
                host: self.host.clone(),
                detail: bad.to_string(),
            })?;
            if let Some(frame) = found {
                return Ok(Some(frame));
            }
            match self.body.frame().await {
                Some(Ok(piece)) => {
                    if let Some(bytes) = piece.data_ref() {
                        self.reader.push(bytes);
                    }
                }
                Some(Err(source)) => {
                    return Err(ClientError::Broken {
                        host: self.host.clone(),
                        source: source.into(),
                    });
                }
                None => return Ok(None),
            }
        }
    }
}

/// Sends the first frame, and waits for the head of the answer.
pub(super) async fn open(
    client: &Client,
    path: &str,
    first: &ExecFrame,
) -> Result<(ExecInput, ExecOutput), ClientError> {
    let (mut sender, body) = Channel::<Bytes>::new(WAITING);
    // There is room for the first one.
    let _sent = sender.send_data(first.encode()).await;
    let (response, driver) =
        connection::converse(client, path, crate::EXEC_TYPE, body.boxed_unsync()).await?;
    let output = ExecOutput {
        host: client.host().clone(),
        body: response.into_body(),
        reader: FrameReader::default(),
        _driver: driver,
    };
    Ok((ExecInput(sender), output))
}
