//! The load for `scripts/bench-proxy`: requests over TCP, and who answers them, on one thread.
//!
//! ```text
//! load_proxy backend LISTEN                                answers until it is killed
//! load_proxy keep TARGET CONNECTIONS SECONDS [LISTEN]      as fast as answers come
//! load_proxy connect TARGET CLIENTS SECONDS [LISTEN]       the same, a connection for each request
//! load_proxy paced TARGET CONNECTIONS RATE SECONDS [LISTEN] so many requests a second
//! load_proxy calls TARGET RATE SECONDS                     the same, a connection for each request
//! load_proxy bulk TARGET SECONDS [LISTEN]                  one answer without an end
//! load_proxy idle TARGET CONNECTIONS [LISTEN]              that say nothing, until input ends
//! ```
//!
//! With LISTEN it is its own backend: so both sides of the proxy share a thread, and no scheduler
//! decides between them. Times are counted from when a request was due.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::{sleep_until, timeout};

type Failure = Box<dyn Error>;

const USAGE: &str = "usage: load_proxy backend LISTEN | keep TARGET CONNECTIONS SECONDS [LISTEN] \
    | connect TARGET CLIENTS SECONDS [LISTEN] | paced TARGET CONNECTIONS RATE SECONDS [LISTEN] \
    | calls TARGET RATE SECONDS | bulk TARGET SECONDS [LISTEN] | idle TARGET CONNECTIONS [LISTEN]";

const KEPT: &[u8] = b"GET / HTTP/1.1\r\nhost: bench.test\r\nuser-agent: load\r\n\r\n";
const LAST: &[u8] = b"GET / HTTP/1.1\r\nhost: bench.test\r\nconnection: close\r\n\r\n";
const BULK: &[u8] = b"GET /bulk HTTP/1.1\r\nhost: bench.test\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 64\r\n\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests of which nothing is noted: connections are made and caches filled.
const WARM_UP: Duration = Duration::from_millis(500);

/// Bytes that bulk is read and written in.
const CHUNK: usize = 64 * 1024;

fn main() -> Result<(), Failure> {
    let most = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, raised)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, run(&words))
}

async fn run(words: &[&str]) -> Result<(), Failure> {
    let seconds = |text: &str| text.parse().map(Duration::from_secs_f64);
    match words {
        ["backend", listen] => Ok(backend(TcpListener::bind(listen).await?).await?),
        ["keep", target, connections, time, own @ ..] => {
            own_backend(own).await?;
            let mode = Mode::Kept { pace: None };
            load(target, connections.parse()?, mode, seconds(time)?).await
        }
        ["connect", target, clients, time, own @ ..] => {
            own_backend(own).await?;
            load(target, clients.parse()?, Mode::Fresh, seconds(time)?).await
        }
        ["paced", target, connections, rate, time, own @ ..] => {
            own_backend(own).await?;
            let count: u32 = connections.parse()?;
            let pace = Duration::from_secs_f64(f64::from(count) / rate.parse::<f64>()?);
            let exact = !own.is_empty();
            let mode = Mode::Kept {
                pace: Some(Pace { pace, exact }),
            };
            load(target, count, mode, seconds(time)?).await
        }
        ["calls", target, rate, time] => calls(target, rate.parse()?, seconds(time)?).await,
        ["bulk", target, time, own @ ..] => {
            own_backend(own).await?;
            bulk(target, seconds(time)?).await
        }
        ["idle", target, connections, own @ ..] => {
            own_backend(own).await?;
            idle(target, connections.parse()?).await
        }
        _ => Err(USAGE.into()),
    }
}

async fn own_backend(listen: &[&str]) -> io::Result<()> {
    if let [listen] = listen {
        let listener = TcpListener::bind(listen).await?;
        spawn_local(backend(listener));
    }
    Ok(())
}

async fn backend(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        spawn_local(answer(stream));
    }
}

/// Answers what comes; requests are taken to arrive whole.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Small, and on the stack of no task that is idle: 10,000 of them are measured.
    loop {
        stream.readable().await?;
        let mut buffer = [0; 256];
        let count = match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let request = &buffer[..count];
        if request == BULK {
            let chunk = vec![0; CHUNK];
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        stream.write_all(ANSWER).await?;
        if request == LAST {
            return Ok(());
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Between two requests of a connection.
    pace: Duration,
    /// Whether the processor is kept busy until a request is due: a timer is too coarse, but
    /// backends of other processes would be kept from it.
    exact: bool,
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    /// On connections that stay, each with this time between two requests.
    Kept { pace: Option<Pace> },
    /// Each on a connection of its own.
    Fresh,
}

/// What came of the requests.
#[derive(Debug, Default)]
struct Outcome {
    /// Nanoseconds of those that were answered.
    times: Vec<u64>,
    failed: u64,
    /// Connections that ended between two requests and were made anew.
    renewed: u64,
}

impl Outcome {
    fn note(&mut self, due: Instant, answered: bool) {
        match answered {
            true => self
                .times
                .push(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            false => self.failed += 1,
        }
    }

    fn tell(&mut self, time: Duration) {
        self.times.sort_unstable();
        let at = |share: f64| {
            let last = self.times.len().saturating_sub(1);
            let index = (last as f64 * share) as usize;
            self.times.get(index).map_or(0, |nanos| nanos / 1_000)
        };
        println!(
            "rate {:.0} p50 {} p99 {} p999 {} answered {} failed {} renewed {}",
            self.times.len() as f64 / time.as_secs_f64(),
            at(0.5),
            at(0.99),
            at(0.999),
            self.times.len(),
            self.failed,
            self.renewed
        );
    }
}

async fn load(target: &str, clients: u32, mode: Mode, time: Duration) -> Result<(), Failure> {
    let outcome = Rc::new(RefCell::new(Outcome::default()));
    let start = Instant::now() + WARM_UP;
    let end = start + time;
    let mut tasks = Vec::new();
    for n in 0..clients {
        let (target, outcome) = (target.to_owned(), Rc::clone(&outcome));
        tasks.push(spawn_local(async move {
            match mode {
                Mode::Kept { pace } => {
                    // Not all at once.
                    let first = pace.map(|p| Instant::now() + p.pace * n / clients);
                    keep(&target, first.zip(pace), (start, end), &outcome).await;
                }
                Mode::Fresh => {
                    while Instant::now() < end {
                        let due = Instant::now();
                        let answered = fresh(&target).await;
                        if due >= start {
                            outcome.borrow_mut().note(due, answered);
                        }
                    }
                }
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    outcome.borrow_mut().tell(time);
    Ok(())
}

/// Requests on one connection, each at its time if there is a pace.
async fn keep(
    target: &str,
    mut pace: Option<(Instant, Pace)>,
    (start, end): (Instant, Instant),
    outcome: &RefCell<Outcome>,
) {
    let mut stream = None;
    loop {
        let due = match &mut pace {
            Some((due, pace)) => {
                if !pace.exact {
                    sleep_until((*due).into()).await;
                }
                while Instant::now() < *due {
                    yield_now().await;
                }
                std::mem::replace(due, *due + pace.pace)
            }
            None => Instant::now(),
        };
        if due >= end {
            return;
        }
        let ended = |stream: &TcpStream| {
            let looked = stream.try_read(&mut [0]);
            !looked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        if stream.as_ref().is_some_and(ended) {
            stream = None;
            outcome.borrow_mut().renewed += 1;
        }
        let answered = timeout(PATIENCE, exchange(target, &mut stream)).await;
        let answered = matches!(answered, Ok(Ok(())));
        if !answered {
            stream = None;
        }
        if due >= start {
            outcome.borrow_mut().note(due, answered);
        }
    }
}

async fn exchange(target: &str, stream: &mut Option<TcpStream>) -> io::Result<()> {
    let stream = match stream {
        Some(stream) => stream,
        None => stream.insert(open(target).await?),
    };
    stream.write_all(KEPT).await?;
    let mut buffer = [0; ANSWER.len()];
    stream.read_exact(&mut buffer).await?;
    match buffer == *ANSWER {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn open(target: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A request on a connection of its own; whether it was answered in full.
async fn fresh(target: &str) -> bool {
    let whole = async {
        let mut stream = open(target).await?;
        stream.write_all(LAST).await?;
        let mut answer = Vec::with_capacity(ANSWER.len() + 1);
        stream.read_to_end(&mut answer).await?;
        io::Result::Ok(answer == ANSWER)
    };
    matches!(timeout(PATIENCE, whole).await, Ok(Ok(true)))
}

async fn calls(target: &str, rate: f64, time: Duration) -> Result<(), Failure> {
    let outcome = Rc::new(RefCell::new(Outcome::default()));
    let start = Instant::now();
    let mut tasks = Vec::new();
    for n in 0..(rate * time.as_secs_f64()) as u32 {
        let due = start + Duration::from_secs_f64(f64::from(n) / rate);
        sleep_until(due.into()).await;
        let (target, outcome) = (target.to_owned(), Rc::clone(&outcome));
        tasks.push(spawn_local(async move {
            let answered = fresh(&target).await;
            outcome.borrow_mut().note(due, answered);
        }));
    }
    for task in tasks {
        task.await?;
    }
    outcome.borrow_mut().tell(time);
    Ok(())
}

async fn bulk(target: &str, time: Duration) -> Result<(), Failure> {
    let mut stream = open(target).await?;
    stream.write_all(BULK).await?;
    let mut buffer = vec![0; CHUNK * 4];
    let (start, mut received) = (Instant::now(), 0);
    while start.elapsed() < time {
        match stream.read(&mut buffer).await? {
            0 => return Err("it ended".into()),
            count => received += count,
        }
    }
    let mib = received as f64 / f64::from(1 << 20) / time.as_secs_f64();
    println!("{mib:.0} MiB/s");
    Ok(())
}

async fn idle(target: &str, connections: u32) -> Result<(), Failure> {
    let mut all = Vec::new();
    for _ in 0..connections {
        let mut stream = None;
        timeout(PATIENCE, exchange(target, &mut stream)).await??;
        all.push(stream);
    }
    println!("{} open", all.len());
    let mut input = String::new();
    tokio::io::stdin().read_to_string(&mut input).await?;
    Ok(())
}
