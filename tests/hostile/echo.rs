//! Servers that repeat whatever they are told, in the place where their protocol has an error: a Redis, a PostgreSQL and an
//! event API as an attacker would run them, or a careless proxy.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Ends with the test's runtime.
pub(super) struct Echo {
    pub(super) redis: SocketAddr,
    pub(super) postgres: SocketAddr,
    pub(super) http: SocketAddr,
}

impl Echo {
    pub(super) async fn start() -> Self {
        Self {
            redis: serve(redis).await,
            postgres: serve(postgres).await,
            http: serve(http).await,
        }
    }
}

async fn serve<F>(answer: fn(TcpStream) -> F) -> SocketAddr
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _peer)) = listener.accept().await {
            // Whoever talks to it hangs up when he likes.
            tokio::spawn(async move { drop(answer(stream).await) });
        }
    });
    address
}

/// What was said, in text that fits into one line.
fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Every command is unknown, and quoted.
async fn redis(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let read = stream.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        let said = line(&bytes[..read]);
        // As many errors as there may be commands in a pipeline; more are not read.
        let errors = format!("-WRONGPASS no: {said}\r\n").repeat(said.matches('*').count().max(1));
        stream.write_all(errors.as_bytes()).await?;
    }
}

/// Asks for the password in clear and quotes it.
async fn postgres(mut stream: TcpStream) -> std::io::Result<()> {
    const IN_CLEAR: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];
    const TLS_WANTED: u32 = 80_877_103;
    loop {
        let size = usize::try_from(stream.read_u32().await?).expect("small");
        let mut startup = vec![0; size.saturating_sub(4)];
        stream.read_exact(&mut startup).await?;
        if startup != TLS_WANTED.to_be_bytes() {
            break;
        }
        stream.write_all(b"N").await?;
    }
    stream.write_all(&IN_CLEAR).await?;
    let mut password = vec![0; 1024];
    let read = stream.read(&mut password).await?;
    let said = line(&password[..read]);
    let fields = format!("SFATAL\0VFATAL\0C28P01\0Mno: {said}\0Dno: {said}\0Hno: {said}\0\0");
    let size = u32::try_from(fields.len() + 4).expect("small");
    stream.write_all(b"E").await?;
    stream.write_u32(size).await?;
    stream.write_all(fields.as_bytes()).await?;
    stream.shutdown().await
}

/// Refuses, and quotes the whole request.
async fn http(mut stream: TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 16_384];
    let read = stream.read(&mut bytes).await?;
    let body = serde_json::json!({"error": String::from_utf8_lossy(&bytes[..read]), "status": 401}).to_string();
    let head = "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
