//! A streamed answer, one JSON object per line.

use std::marker::PhantomData;

use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::connection::Driver;
use super::{ClientError, Host};

/// Longest line that is read, in bytes: nodes cut log lines far below this.
const MAX_LINE: usize = 1 << 20;

/// The records of a stream. Dropping it closes the connection.
#[derive(Debug)]
pub struct Lines<T> {
    host: Host,
    body: Incoming,
    _driver: Driver,
    buffer: BytesMut,
    ended: bool,
    record: PhantomData<fn() -> T>,
}

impl<T> Lines<T> {
    pub(super) fn new(host: Host, body: Incoming, driver: Driver) -> Self {
        Self {
            host,
            body,
            _driver: driver,
            buffer: BytesMut::new(),
            ended: false,
            record: PhantomData,
        }
    }
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next record; `None` when the stream has ended in good order. It waits as long as it
    /// takes, and nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(line) = self.take_line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return self.read(&line).map(Some);
            }
            if self.ended {
                return Ok(None);
            }
            if self.buffer.len() > MAX_LINE {
                return Err(self.garbled(format!("a line is longer than {MAX_LINE} bytes")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(source)) => {
                    self.ended = true;
                    return Err(ClientError::Broken {
                        host: self.host.clone(),
                        source: source.into(),
                    });
                }
                None => self.ended = true,
            }
        }
    }

    /// The next whole line, or after the end what is left.
    fn take_line(&mut self) -> Option<BytesMut> {
        match self.buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => Some(self.buffer.split_to(end + 1)),
            None if self.ended && !self.buffer.is_empty() => Some(self.buffer.split()),
            None => None,
        }
    }

    fn read(&self, line: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(line).map_err(|error| self.garbled(error.to_string()))
    }

    fn garbled(&self, detail: String) -> ClientError {
        ClientError::Garbled {
            host: self.host.clone(),
            detail,
        }
    }
}
