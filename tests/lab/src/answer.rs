//! Does a daemon answer? The least of each protocol that proves it, with time limits throughout: the
//! forwarding of QEMU accepts connections even when nobody listens in the guest.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(15);

/// The body of a page.
pub fn http(port: u16, path: &str) -> Result<String> {
    let mut stream = connect(port)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: board\r\n\r\n");
    stream.write_all(request.as_bytes()).context("asking over HTTP")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading an answer over HTTP")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("reading an answer over HTTP: cut short")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "asking for {path}: {status}");
    Ok(body.into())
}

/// What the application says of itself.
pub fn app(port: u16) -> Result<Value> {
    serde_json::from_str(&http(port, "/")?).context("reading the application's answer")
}

/// MQTT 3.1.1: connect, be accepted, ping, be answered.
pub fn mqtt(port: u16) -> Result<()> {
    let mut stream = connect(port)?;
    let connect = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03lab";
    stream.write_all(connect)?;
    let mut accepted = [0; 4];
    stream.read_exact(&mut accepted).context("connecting over MQTT")?;
    ensure!(accepted == [0x20, 2, 0, 0], "connecting over MQTT: answered {accepted:?}");
    stream.write_all(&[0xc0, 0])?;
    let mut pong = [0; 2];
    stream.read_exact(&mut pong).context("a ping over MQTT")?;
    ensure!(pong == [0xd0, 0], "a ping over MQTT: answered {pong:?}");
    Ok(())
}

/// The line an SSH server greets with, and the cookie of its first message: random for each
/// connection, so two boots that give the same one share a random state they must not share.
pub fn ssh(port: u16) -> Result<(String, Vec<u8>)> {
    let mut stream = connect(port)?;
    stream.write_all(b"SSH-2.0-lab\r\n")?;
    let mut greeting = Vec::new();
    let mut byte = [0];
    while !greeting.ends_with(b"\n") {
        stream.read_exact(&mut byte).context("reading the SSH greeting")?;
        greeting.push(byte[0]);
    }
    let greeting = String::from_utf8_lossy(&greeting).trim().to_string();
    ensure!(greeting.starts_with("SSH-2.0-"), "reading the SSH greeting: {greeting}");
    // length, padding length, message number, then sixteen random bytes
    let mut begin = [0; 22];
    stream.read_exact(&mut begin).context("reading the SSH key exchange")?;
    ensure!(begin[5] == 20, "reading the SSH key exchange: message {}", begin[5]);
    Ok((greeting, begin[6..].to_vec()))
}

/// A ping of redis over TCP.
pub fn redis(port: u16) -> Result<()> {
    let mut stream = connect(port)?;
    stream.write_all(b"PING\r\n")?;
    let mut pong = [0; 7];
    stream.read_exact(&mut pong).context("a ping of redis")?;
    ensure!(&pong == b"+PONG\r\n", "a ping of redis: answered {:?}", String::from_utf8_lossy(&pong));
    Ok(())
}

/// Tries until it works or the time is up: a first packet may be lost while the guest learns the way.
pub fn retry<T>(limit: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let end = std::time::Instant::now() + limit;
    loop {
        match ask() {
            Err(error) if std::time::Instant::now() > end => bail!(error),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
            done => return done,
        }
    }
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), LIMIT)
        .context("connecting to the guest")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}
