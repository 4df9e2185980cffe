//! The proxy in front of a server made of a few lines, which counts what reaches it.

use super::*;
use std::io::{Read, Write};
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

/// A server that answers every request with the same body and keeps the heads that it got.
struct Plain {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
    bytes: Arc<AtomicUsize>,
}

const BODY: &str = "0123456789";

fn plain() -> Plain {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (heads, bytes) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (kept, counted) = (Arc::clone(&heads), Arc::clone(&bytes));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            let mut head = message::Head::read(&mut reader).unwrap().unwrap();
            let mut text = Vec::new();
            head.write(&mut text).unwrap();
            kept.lock().unwrap().push(String::from_utf8(text).unwrap());
            if let Ok(body) = head.read_request_body(&mut reader, usize::MAX) {
                counted.fetch_add(body.len(), Ordering::SeqCst);
                let answer =
                    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n{BODY}\r\n0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    Plain { address, heads, bytes }
}

/// Everything that comes back before the connection ends, for `patience` at most.
fn ask_within(proxy: &FaultProxy, requests: &str, patience: Duration) -> String {
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(requests.as_bytes()).unwrap();
    let mut got = Vec::new();
    // A stalled answer and a connection that is reset end with an error.
    let _ = stream.read_to_end(&mut got);
    String::from_utf8(got).unwrap()
}

fn ask(proxy: &FaultProxy, requests: &str) -> String {
    ask_within(proxy, requests, Duration::from_secs(30))
}

const PUT: &str = "PUT /b/wal/x?a=1&X-Amz-Signature=5ecret HTTP/1.1\r\nHost: signed.example:1\r\nAuthorization: AWS4 5ecret\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

#[test]
fn what_no_rule_hits_passes_with_its_host_on_a_connection_that_stays() {
    let server = plain();
    let proxy = FaultProxy::start(&server.address).unwrap();
    let first = PUT.replace("Connection: close\r\n", "");
    let answer = ask(&proxy, &format!("{first}{PUT}"));
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
    assert!(answer.contains("Content-Length: 10\r\n\r\n0123456789"), "{answer}");
    let heads = server.heads.lock().unwrap().clone();
    assert!(heads.iter().all(|head| head.contains("Host: signed.example:1\r\n")), "{heads:?}");
    assert_eq!((heads.len(), server.bytes.load(Ordering::SeqCst)), (2, 10));
}

#[test]
fn the_record_names_the_requests_and_keeps_no_secret() {
    let server = plain();
    let proxy = FaultProxy::start(&server.address).unwrap();
    ask(&proxy, PUT);
    let seen = proxy.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("PUT", "/b/wal/x"));
    assert_eq!(
        (seen[0].query.as_str(), seen[0].header("content-length")),
        ("a=1&X-Amz-Signature", Some("5"))
    );
    assert!(!format!("{seen:?} {proxy:?}").contains("5ecret"));
    proxy.forget();
    assert_eq!(proxy.seen(), []);
}

#[test]
fn each_fault_does_to_the_server_and_to_the_client_what_it_is_called() {
    let error = Failure::SLOW_DOWN;
    let redirect = Fault::Redirect { status: 307, location: "http://elsewhere/".to_owned() };
    let ok = |carried_out| Fault::OkWithError { code: "InternalError", carried_out };
    let short = Fault::ShortAnswer(3);
    let trickle = Fault::Trickle(4, Duration::from_millis(1));
    // The fault, whether the server gets the whole request, and a piece of what the client gets.
    for (fault, carried_out, piece) in [
        (Fault::CutBefore, false, ""),
        (Fault::CutAfter, true, ""),
        (Fault::CutRequest(2), false, ""),
        (Fault::CutAnswer(4), true, "Content-Length: 10\r\n\r\n0123"),
        (short, true, "Content-Length: 3\r\n\r\n012"),
        (Fault::FlippedBit, true, "\r\n\r\n0123446789"),
        (Fault::Answer(error), false, "503 Injected"),
        (Fault::AnswerAfter(error), true, "<Code>SlowDown</Code>"),
        (ok(false), false, "200 Injected"),
        (ok(true), true, "<Code>InternalError</Code>"),
        (Fault::Page(404), false, "<html>"),
        (redirect, false, "Location: http://elsewhere/"),
        (Fault::Delay(Duration::from_millis(1)), true, BODY),
        (Fault::Stall, false, ""),
        (Fault::StallAfter, true, ""),
        (trickle, true, BODY),
    ] {
        let server = plain();
        let proxy = FaultProxy::start(&server.address).unwrap();
        proxy.add(Requests::all().path("wal/"), When::First(1), fault.clone());
        let stalls = matches!(fault, Fault::Stall | Fault::StallAfter);
        let patience = Duration::from_millis(if stalls { 300 } else { 30_000 });
        let answer = ask_within(&proxy, PUT, patience);
        let arrived = || server.bytes.load(Ordering::SeqCst) == 5;
        if fault == Fault::StallAfter {
            crate::wait::until_true("the request to arrive", Duration::from_secs(30), || Ok(arrived()))
                .unwrap();
        }
        assert_eq!(arrived(), carried_out, "{fault:?}");
        assert!(answer.contains(piece), "{fault:?}: {answer}");
        assert!(answer.ends_with(piece) || !piece.contains("\r\n\r\n"), "{fault:?}: {answer}");
        assert_eq!(answer.is_empty(), piece.is_empty(), "{fault:?}: {answer}");
        assert_eq!(proxy.injected(), 1);
        // The rule has had its share.
        assert!(ask(&proxy, PUT).ends_with(BODY), "{fault:?}");
    }
}

#[test]
fn rules_choose_their_requests_and_their_number() {
    let head = |text: &str| message::Head::read(&mut text.as_bytes()).unwrap().unwrap();
    let part = head("PUT /b/k?partNumber=1&uploadId=u HTTP/1.1\r\n\r\n");
    let create = head("PUT /b/k HTTP/1.1\r\nIf-None-Match: *\r\n\r\n");
    let complete = head("POST /b/k?uploadId=u HTTP/1.1\r\n\r\n");
    let begin = head("POST /b/k?uploads HTTP/1.1\r\n\r\n");
    let list = head("GET /b?list-type=2&prefix=k HTTP/1.1\r\n\r\n");
    let read = head("GET /b/k HTTP/1.1\r\n\r\n");
    let every = [&part, &create, &complete, &begin, &list, &read];
    for (number, requests) in [
        Requests::parts(),
        Requests::creations().header("if-none-match"),
        Requests::completions(),
        Requests::beginnings(),
        Requests::lists(),
        Requests::reads().path("/b/k"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut script = Script::default();
        script.rules.push(Rule::new(requests.clone(), When::Always, Fault::CutAfter));
        let hit: Vec<bool> = every.iter().map(|head| script.decide(head).is_some()).collect();
        assert_eq!(hit, (0..6).map(|n| n == number).collect::<Vec<_>>(), "{requests:?}");
    }
    let hits = |when: When| {
        let mut script = Script::default();
        script.rules.push(Rule::new(Requests::all(), when, Fault::CutAfter));
        (1..=1000).filter(|_| script.decide(&read).is_some()).count()
    };
    assert_eq!((hits(When::First(2)), hits(When::After(990)), hits(When::Every(10))), (2, 10, 100));
    let share = hits(When::Share { seed: 7, per_mille: 200 });
    assert!((150..250).contains(&share), "{share}");
    assert_eq!(hits(When::Share { seed: 7, per_mille: 200 }), share);
}

#[test]
fn the_end_of_the_proxy_ends_a_stalled_connection() {
    let proxy = FaultProxy::start("127.0.0.1:1").unwrap();
    proxy.add(Requests::all(), When::Always, Fault::Stall);
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.write_all(PUT.as_bytes()).unwrap();
    while proxy.seen().is_empty() {
        thread::sleep(POLL);
    }
    let began = Instant::now();
    drop(proxy);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(20));
}
