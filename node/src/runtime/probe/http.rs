//! One HTTP request.

use std::net::SocketAddr;
use std::pin::pin;

use axum::body::Body;
use dunlin_state::model::HttpTest;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;

/// Bytes of an answer's head: what a replica sends beyond is an error. Its body is not read.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Headers of an answer.
const MAX_HEADERS: usize = 128;

/// Sends the request; an error unless the answer's status is 200 to 399.
pub(super) async fn get(address: SocketAddr, test: &HttpTest) -> Result<(), String> {
    let host = test.host.clone().unwrap_or_else(|| address.to_string());
    let mut request = Request::get(&test.path)
        .header("host", host)
        .header("user-agent", concat!("dunlin/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close");
    for (name, value) in &test.headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Body::empty())
        .map_err(|error| format!("the request cannot be sent: {error}"))?;
    let stream = super::connect(address).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("no HTTP with {address}: {error}"))?;
    let mut answer = pin!(sender.send_request(request));
    let mut connection = pin!(connection);
    // The connection is driven here, so that it ends with the probe. It may have ended, and left an
    // answer, before that was looked for.
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    let status = answer
        .map_err(|error| format!("no HTTP answer from {address}: {error}"))?
        .status();
    match is_well(status) {
        true => Ok(()),
        false => Err(format!("{} answered with status {status}", test.path)),
    }
}

fn is_well(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with these bytes; returns the verdict and what was asked.
    async fn ask(answer: &'static [u8], test: &HttpTest) -> (Result<(), String>, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4_096];
            let count = stream.read(&mut asked).await.unwrap();
            asked.truncate(count);
            // The prober may have seen enough already.
            let _ = stream.write_all(answer).await;
            String::from_utf8(asked).unwrap()
        };
        tokio::join!(get(address, test), serve)
    }

    #[tokio::test]
    async fn the_status_decides() {
        let table: [(&[u8], bool); 6] = [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
            (b"HTTP/1.0 204 No Content\r\n\r\n", true),
            (b"HTTP/1.1 302 Found\r\nlocation: /x\r\n\r\n", true),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", false),
            (b"HTTP/1.1 503 Busy\r\n\r\n", false),
            (b"220 smtp.example ESMTP\r\n", false),
        ];
        for (answer, well) in table {
            let (result, _) = ask(answer, &HttpTest::default()).await;
            assert_eq!(result.is_ok(), well, "{answer:?}: {result:?}");
        }
    }

    #[tokio::test]
    async fn path_host_and_headers_are_sent() {
        let test = HttpTest {
            path: "/healthz?full=1".to_owned(),
            host: Some("shop.example".to_owned()),
            headers: [("x-probe".to_owned(), "yes".to_owned())].into(),
            ..HttpTest::default()
        };
        let (result, asked) = ask(b"HTTP/1.1 200 OK\r\n\r\n", &test).await;
        assert_eq!(result, Ok(()));
        assert!(
            asked.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"),
            "{asked}"
        );
        let lower = asked.to_ascii_lowercase();
        assert!(lower.contains("\r\nhost: shop.example\r\n"), "{asked}");
        assert!(lower.contains("\r\nx-probe: yes\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn an_endless_head_is_cut_off() {
        let endless: &'static [u8] = {
            let mut text = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
            text.resize(4 * MAX_HEAD_BYTES, b'a');
            text.leak()
        };
        let (result, _) = ask(endless, &HttpTest::default()).await;
        assert!(result.is_err());
    }
}
