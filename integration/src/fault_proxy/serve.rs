//! One client's connection: each request to the server behind and its answer back, with what the
//! script does to it on the way.

use super::message::Head;
use super::script::{Failure, Fault};
use super::{POLL, Shared};
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// For the server behind, which nobody slows down: past it a test is broken, not slow.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(60);

/// What follows an exchange.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The connection takes another request.
    KeepAlive,
    /// It ends.
    Cut,
}

/// An answer, whole.
struct Answer {
    head: Head,
    body: Vec<u8>,
}

/// Serves requests until the client leaves, a fault cuts the connection, or the proxy ends.
pub(super) fn serve(client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut requests = BufReader::new(client.try_clone()?);
    let mut exchange = Exchange { client, shared };
    while let Some(head) = Head::read(&mut requests)? {
        let fault = shared.script().decide(&head);
        let last = head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if exchange.carry_out(head, &mut requests, fault)? == Next::Cut || last {
            break;
        }
    }
    // Without it the clone that is kept for the proxy's end would hold the connection open.
    let _ = exchange.client.shutdown(Shutdown::Both);
    Ok(())
}

struct Exchange<'s> {
    client: TcpStream,
    shared: &'s Shared,
}

impl Exchange<'_> {
    fn carry_out(
        &mut self,
        mut head: Head,
        requests: &mut BufReader<TcpStream>,
        fault: Option<Fault>,
    ) -> io::Result<Next> {
        let bytes_max = if let Some(Fault::CutRequest(bytes)) = fault { bytes } else { usize::MAX };
        if fault == Some(Fault::CutBefore) {
            return Ok(Next::Cut);
        }
        let body = head.read_request_body(requests, bytes_max)?;
        let Some(fault) = fault else {
            let answer = self.upstream(&head, &body)?;
            return self.answer(&head, &answer);
        };
        match fault {
            Fault::CutBefore => Ok(Next::Cut),
            Fault::CutRequest(_) => self.send(&head, &body).map(|_| Next::Cut),
            Fault::CutAfter => self.upstream(&head, &body).map(|_| Next::Cut),
            Fault::Stall => self.stall(),
            Fault::StallAfter => {
                self.upstream(&head, &body)?;
                self.stall()
            }
            Fault::Delay(pause) => {
                self.pause(pause);
                let answer = self.upstream(&head, &body)?;
                self.answer(&head, &answer)
            }
            Fault::Answer(failure) => self.answer(&head, &failed(&head, failure)),
            Fault::AnswerAfter(failure) => {
                self.upstream(&head, &body)?;
                self.answer(&head, &failed(&head, failure))
            }
            Fault::OkWithError { code, carried_out } => {
                if carried_out {
                    self.upstream(&head, &body)?;
                }
                self.answer(&head, &failed(&head, Failure { status: 200, code }))
            }
            Fault::Page(status) => self.answer(&head, &page(status)),
            Fault::Redirect { status, location } => self.answer(&head, &redirect(status, &location)),
            fault => {
                let answer = self.upstream(&head, &body)?;
                self.spoiled(&head, answer, &fault)
            }
        }
    }

    /// Gives the server's answer in a bad state.
    fn spoiled(&mut self, request: &Head, mut answer: Answer, fault: &Fault) -> io::Result<Next> {
        match fault {
            Fault::CutAnswer(bytes) => {
                answer.body.truncate(*bytes);
                answer.head.write(&mut self.client)?;
                self.client.write_all(&answer.body)?;
                Ok(Next::Cut)
            }
            Fault::ShortAnswer(bytes) => {
                answer.body.truncate(*bytes);
                answer.head.set("Content-Length", answer.body.len().to_string());
                self.answer(request, &answer)
            }
            Fault::FlippedBit => {
                let middle = answer.body.len() / 2;
                if let Some(byte) = answer.body.get_mut(middle) {
                    *byte ^= 1;
                }
                self.answer(request, &answer)
            }
            Fault::Trickle(bytes, pause) => {
                answer.head.write(&mut self.client)?;
                for piece in answer.body.chunks((*bytes).max(1)) {
                    self.client.write_all(piece)?;
                    self.pause(*pause);
                }
                Ok(Next::KeepAlive)
            }
            _ => self.answer(request, &answer),
        }
    }

    fn answer(&mut self, request: &Head, answer: &Answer) -> io::Result<Next> {
        let mut bytes = Vec::new();
        answer.head.write(&mut bytes)?;
        if request.method() != "HEAD" {
            bytes.extend_from_slice(&answer.body);
        }
        self.client.write_all(&bytes)?;
        Ok(Next::KeepAlive)
    }

    /// Sends a request to the server, on a connection of its own that ends with the answer.
    fn send(&self, head: &Head, body: &[u8]) -> io::Result<TcpStream> {
        let mut server = TcpStream::connect(&self.shared.upstream)?;
        server.set_nodelay(true)?;
        server.set_read_timeout(Some(UPSTREAM_TIMEOUT))?;
        let mut head = head.clone();
        head.set("Connection", "close");
        head.write(&mut server)?;
        server.write_all(body)?;
        Ok(server)
    }

    /// Has the server carry out a request to its end.
    fn upstream(&self, head: &Head, body: &[u8]) -> io::Result<Answer> {
        let mut from = BufReader::new(self.send(head, body)?);
        let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "the server gave no answer");
        let mut answer = Head::read(&mut from)?.ok_or_else(broken)?;
        answer.remove("connection");
        let without = head.method() == "HEAD" || answer.is_bodiless();
        let body = if without { Vec::new() } else { answer.read_answer_body(&mut from)? };
        Ok(Answer { head: answer, body })
    }

    fn pause(&self, pause: Duration) {
        let ends = Instant::now() + pause;
        while !self.shared.is_stopping() && Instant::now() < ends {
            thread::sleep(POLL.min(ends.saturating_duration_since(Instant::now())));
        }
    }

    /// Waits until the client leaves or the proxy ends.
    fn stall(&self) -> io::Result<Next> {
        self.client.set_read_timeout(Some(POLL))?;
        while !self.shared.is_stopping() {
            match self.client.peek(&mut [0]) {
                Ok(0) => break,
                Ok(_) => thread::sleep(POLL),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                Err(_) => break,
            }
        }
        Ok(Next::Cut)
    }
}

fn made(status: u16, kind: &str, body: String) -> Answer {
    let mut head = Head::new(format!("HTTP/1.1 {status} Injected"));
    head.set("Content-Type", kind);
    head.set("Content-Length", body.len().to_string());
    head.set("x-amz-request-id", "injected");
    Answer { head, body: body.into_bytes() }
}

/// An error as S3 words it.
fn failed(request: &Head, Failure { status, code }: Failure) -> Answer {
    let resource = request.path();
    made(
        status,
        "application/xml",
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>injected by the suite\
             </Message><Resource>{resource}</Resource><RequestId>injected</RequestId></Error>"
        ),
    )
}

fn page(status: u16) -> Answer {
    made(status, "text/html", "<html><body><h1>please log in</h1></body></html>".to_owned())
}

fn redirect(status: u16, location: &str) -> Answer {
    let mut answer = page(status);
    answer.head.set("Location", location);
    answer
}
