use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use dunlin_state::route::RouteTable;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Asked};
use hickory_proto::rr::rdata::{A, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::stored::{BadReply, Stored, question};
use super::*;
use crate::{DnsServer, Suffix};

/// A resolver that answers with whatever a function says, and counts.
struct Resolver {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

type Script = fn(&Message, bool) -> Vec<Vec<u8>>;

async fn resolver(script: Script) -> Resolver {
    let (udp, tcp) = loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let counted = asked.clone();
    tasks.spawn(async move {
        let mut buffer = [0; 2_000];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..length]).unwrap();
            // A look for loops is no question of a client.
            if !query.queries[0].name().to_ascii().contains("dunlin-loop") {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            for reply in script(&query, false) {
                udp.send_to(&reply, from).await.unwrap();
            }
        }
    });
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut packet = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut packet).await.unwrap();
            let query = Message::from_vec(&packet).unwrap();
            for reply in script(&query, true) {
                stream.write_u16(reply.len() as u16).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        }
    });
    Resolver {
        address,
        asked,
        _tasks: tasks,
    }
}

fn reply_to(query: &Message, code: ResponseCode, records: &[Record]) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.response_code = code;
    reply.metadata.recursion_available = true;
    reply.queries.clone_from(&query.queries);
    reply.answers = records.to_vec();
    reply
}

fn record(query: &Message, ttl: u32, data: RData) -> Record {
    Record::from_rdata(query.queries[0].name().clone(), ttl, data)
}

fn soa(minimum: u32) -> Record {
    let name = Name::from_ascii("com.").unwrap();
    let data = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, minimum);
    Record::from_rdata(name, 900, RData::SOA(data))
}

/// One address for an hour, and EDNS as it should be.
fn honest(query: &Message, _tcp: bool) -> Vec<Vec<u8>> {
    let address = RData::A(A::new(192, 0, 2, 80));
    let mut reply = reply_to(
        query,
        ResponseCode::NoError,
        &[record(query, 3_600, address)],
    );
    reply.edns = query.edns.as_ref().map(|_| Edns::new());
    vec![reply.to_vec().unwrap()]
}

struct Running {
    address: SocketAddr,
    _routes: watch::Sender<Arc<RouteTable>>,
    _stop: tokio_util::sync::DropGuard,
}

async fn server(upstreams: &[SocketAddr]) -> Running {
    let bound = DnsServer::bind((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .unwrap();
    let address = bound.addresses()[0];
    let server = bound.upstreams(Upstreams::Fixed(upstreams.to_vec()));
    let (routes, receiver) = watch::channel(Arc::default());
    let stop = CancellationToken::new();
    tokio::spawn(server.serve(receiver, Suffix::default(), stop.clone()));
    Running {
        address,
        _routes: routes,
        _stop: stop.drop_guard(),
    }
}

fn query(name: &str, id: u16) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

async fn send(server: SocketAddr, query: &Message) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&query.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 2_000];
    let length = socket.recv(&mut buffer).await.unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

/// Asks until the server knows its upstreams, which it reads when it starts.
async fn ask(server: SocketAddr, query: &Message) -> Message {
    for _ in 0..200 {
        let answer = send(server, query).await;
        if answer.metadata.response_code != ResponseCode::ServFail {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it cannot ask anybody");
}

#[tokio::test]
async fn other_names_are_asked_for_once_and_kept() {
    let upstream = resolver(honest).await;
    let server = server(&[upstream.address]).await;
    let first = ask(server.address, &query("wWw.ExamplE.com.", 5)).await;
    assert_eq!(first.answers.len(), 1);
    assert_eq!(first.metadata.id, 5);
    assert!(first.metadata.recursion_available && !first.metadata.authoritative);
    let asked = Name::from_ascii("wWw.ExamplE.com.").unwrap();
    assert!(
        first.queries[0].name().eq_case(&asked),
        "in the client's case"
    );
    assert!(first.edns.is_none(), "the client has none");
    let before = upstream.asked.load(Ordering::Relaxed);
    let mut with_edns = query("www.example.com.", 6);
    with_edns.edns = Some(Edns::new());
    let second = ask(server.address, &with_edns).await;
    assert_eq!((second.metadata.id, second.answers.len()), (6, 1));
    assert!(second.edns.is_some() && second.answers[0].ttl <= 3_600);
    assert_eq!(
        upstream.asked.load(Ordering::Relaxed),
        before,
        "it was kept"
    );
    // Signatures are another question.
    with_edns.edns.as_mut().unwrap().set_dnssec_ok(true);
    ask(server.address, &with_edns).await;
    assert_eq!(upstream.asked.load(Ordering::Relaxed), before + 1);
}

#[tokio::test]
async fn a_dead_upstream_is_passed_over() {
    let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let dead = gone.local_addr().unwrap();
    let broken = resolver(|query, _tcp| {
        vec![
            reply_to(query, ResponseCode::ServFail, &[])
                .to_vec()
                .unwrap(),
        ]
    });
    let (broken, upstream) = (broken.await, resolver(honest).await);
    drop(gone);
    let server = server(&[dead, broken.address, upstream.address]).await;
    let answer = ask(server.address, &query("a.example.com.", 1)).await;
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn what_is_cut_is_fetched_over_tcp() {
    let long = |query: &Message, tcp: bool| {
        let text = RData::TXT(TXT::new(vec!["x".repeat(200); 10]));
        let mut reply = reply_to(query, ResponseCode::NoError, &[]);
        reply.metadata.truncation = !tcp;
        if tcp {
            reply.answers.push(record(query, 60, text));
        }
        vec![reply.to_vec().unwrap()]
    };
    let upstream = resolver(long).await;
    let server = server(&[upstream.address]).await;
    let question = query("big.example.com.", 1);
    let answer = ask(server.address, &question).await;
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let packet = question.to_vec().unwrap();
    stream.write_u16(packet.len() as u16).await.unwrap();
    stream.write_all(&packet).await.unwrap();
    let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut reply).await.unwrap();
    let answer = Message::from_vec(&reply).unwrap();
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn guesses_are_passed_over() {
    let guessed = |query: &Message, tcp: bool| {
        let forged = RData::A(A::new(6, 6, 6, 6));
        let mut wrong_id = reply_to(query, ResponseCode::NoError, &[record(query, 60, forged)]);
        let mut wrong_name = wrong_id.clone();
        wrong_id.metadata.id = query.metadata.id.wrapping_add(1);
        wrong_name.queries[0].set_name(Name::from_ascii("bank.example.com.").unwrap());
        let forged = [wrong_id, wrong_name].map(|m| m.to_vec().unwrap());
        let mut all: Vec<Vec<u8>> = forged.into();
        all.extend(honest(query, tcp));
        all
    };
    let upstream = resolver(guessed).await;
    let server = server(&[upstream.address]).await;
    let answer = ask(server.address, &query("a.example.com.", 1)).await;
    assert_eq!(answer.answers[0].data, RData::A(A::new(192, 0, 2, 80)));
}

#[tokio::test]
async fn a_resolver_from_before_edns_is_asked_without() {
    let old = |query: &Message, tcp: bool| match query.edns {
        Some(_) => vec![
            reply_to(query, ResponseCode::FormErr, &[])
                .to_vec()
                .unwrap(),
        ],
        None => honest(query, tcp),
    };
    let upstream = resolver(old).await;
    let server = server(&[upstream.address]).await;
    let answer = ask(server.address, &query("a.example.com.", 1)).await;
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn what_is_nobodys_business_is_not_passed_on() {
    let upstream = resolver(honest).await;
    let server = server(&[upstream.address]).await;
    ask(server.address, &query("warm.up.example.", 1)).await;
    let before = upstream.asked.load(Ordering::Relaxed);
    for (name, code, answers) in [
        ("web.default.dunlin.internal.", ResponseCode::NXDomain, 0),
        ("web.", ResponseCode::NXDomain, 0),
        ("x.onion.", ResponseCode::NXDomain, 0),
        ("1.0.0.127.in-addr.arpa.", ResponseCode::NXDomain, 0),
        ("a.localhost.", ResponseCode::NoError, 1),
        ("_dns.resolver.arpa.", ResponseCode::NoError, 0),
    ] {
        let answer = send(server.address, &query(name, 1)).await;
        assert_eq!(answer.metadata.response_code, code, "{name}");
        assert_eq!(answer.answers.len(), answers, "{name}");
    }
    assert_eq!(upstream.asked.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn an_upstream_that_asks_us_is_found_out() {
    // A resolver that sends everything to our server: its address is known after the server's.
    let relay = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = relay.local_addr().unwrap();
    let server = server(&[address]).await;
    let (target, relayed) = (server.address, Arc::new(AtomicUsize::new(0)));
    let counted = relayed.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut buffer = [0; 2_000];
        loop {
            let (length, from) = relay.recv_from(&mut buffer).await.unwrap();
            if from != target {
                counted.fetch_add(1, Ordering::Relaxed);
                relay.send_to(&buffer[..length], target).await.unwrap();
            }
        }
    });
    // Once it is found out nobody is left to ask, and that is said at once.
    let answer = loop {
        let answer = send(server.address, &query("a.example.com.", 1)).await;
        if relayed.load(Ordering::Relaxed) > 0 {
            break answer;
        }
    };
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(relayed.load(Ordering::Relaxed) < 20, "no storm");
}

fn key(name: &str) -> Key {
    let packet = query(name, 1).to_vec().unwrap();
    match Packet::read(&packet) {
        Packet::Query(query) => Key::of(&query),
        other => panic!("{other:?}"),
    }
}

#[test]
fn denials_are_kept_for_a_moment_and_only_with_proof() {
    let asked = query("gone.example.com.", 9);
    let kept = |code, authority: &[Record]| {
        let mut reply = reply_to(&asked, code, &[]);
        reply.authorities = authority.to_vec();
        let packet = reply.to_vec().unwrap();
        Stored::read(&packet, 9, &key("gone.example.com."))
            .unwrap()
            .keep
    };
    use ResponseCode::{NXDomain, NoError};
    assert_eq!(kept(NXDomain, &[]), Duration::ZERO);
    assert_eq!(kept(NXDomain, &[soa(5)]), Duration::from_secs(5));
    assert_eq!(kept(NXDomain, &[soa(86_400)]), LONGEST_DENIAL);
    assert_eq!(kept(NoError, &[soa(7)]), Duration::from_secs(7));
}

#[test]
fn lifetimes_count_down_and_the_cache_forgets() {
    let asked = query("a.example.com.", 9);
    let packet = &honest(&asked, false)[0];
    let key = Arc::new(key("a.example.com."));
    let stored = Arc::new(Stored::read(packet, 9, &key).unwrap());
    let (mut cache, start) = (Cache::default(), Instant::now());
    cache.put(key.clone(), stored, start);
    let later = start + Duration::from_secs(100);
    let (stored, age) = cache.get(&key, later).unwrap();
    let packet = asked.to_vec().unwrap();
    let Packet::Query(query) = Packet::read(&packet) else {
        panic!("it is a query");
    };
    let mut reply = Vec::new();
    let manner = Manner { recursion: true };
    let mut out = Out {
        query: &query,
        limit: 512,
        manner,
        reply: &mut reply,
    };
    stored.write(&mut out, age);
    assert_eq!(Message::from_vec(&reply).unwrap().answers[0].ttl, 3_500);
    assert!(cache.get(&key, start + LONGEST).is_none());
}

#[test]
fn the_cache_is_bounded() {
    let mut cache = Cache::default();
    let now = Instant::now();
    for n in 0..10_000 {
        let name = format!("n{n}.example.com.");
        let asked = query(&name, 9);
        let key = Arc::new(key(&name));
        let stored = Stored::read(&honest(&asked, false)[0], 9, &key).unwrap();
        cache.put(key.clone(), Arc::new(stored), now);
        assert!(cache.get(&key, now).is_some(), "the newest is there");
    }
    assert_eq!(cache.len(), 4_096);
    assert!(cache.get(&key("n0.example.com."), now).is_none());
}

#[test]
fn edns_between_other_records_is_cut_out() {
    let asked = query("a.example.com.", 9);
    let mut reply = reply_to(&asked, ResponseCode::NoError, &[]);
    let address = record(&asked, 60, RData::A(A::new(192, 0, 2, 1)));
    reply.answers.push(address.clone());
    reply.additionals.push(address);
    let mut packet = reply.to_vec().unwrap();
    // The additional record has a compressed owner, 12 bytes before its address.
    let at = packet.len() - 16;
    packet.splice(at..at, crate::wire::opt(ResponseCode::NoError, false));
    packet[11] = 2;
    let stored = Stored::read(&packet, 9, &key("a.example.com.")).unwrap();
    let plain = Stored::read(&reply.to_vec().unwrap(), 9, &key("a.example.com.")).unwrap();
    assert_eq!(stored, plain);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn survives_any_reply(mut packet in prop::collection::vec(any::<u8>(), 0..400), tame: bool) {
        let key = key("a.example.com.");
        if tame {
            let mut start = question(&key, 9, false);
            start[2] = 0x81;
            start[3] = 0;
            start[6..12].copy_from_slice(&[0, 2, 0, 1, 0, 1]);
            start.extend_from_slice(&packet);
            packet = start;
        }
        // Some are well-formed by chance.
        let _any = Stored::read(&packet, 9, &key);
    }

    #[test]
    fn damaged_replies_are_read_or_refused(at in 0..120_usize, value: u8, cut in 12..120_usize) {
        let asked = query("a.example.com.", 9);
        let mut reply = reply_to(&asked, ResponseCode::NoError, &[]);
        reply.answers.push(record(&asked, 60, RData::A(A::new(192, 0, 2, 1))));
        reply.authorities.push(soa(5));
        reply.edns = Some(Edns::new());
        let mut packet = reply.to_vec().unwrap();
        if let Some(byte) = packet.get_mut(at) {
            *byte = value;
        }
        packet.truncate(cut);
        let read = Stored::read(&packet, 9, &key("a.example.com."));
        if let Err(BadReply::Cut) = read {
            prop_assert_ne!(packet[2] & flag::TC, 0);
        }
        if let Ok(stored) = read {
            prop_assert!(stored.keep <= LONGEST);
        }
    }
}
