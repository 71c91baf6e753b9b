//! A Redis of the test's own, which it may fill, lock and kill.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use redis::Value;

/// Ends with the test.
pub(crate) struct Server {
    port: u16,
    arguments: Vec<String>,
    child: Child,
    /// Shared by every call of [`Server::ask`].
    connection: tokio::sync::OnceCell<redis::aio::MultiplexedConnection>,
}

impl Server {
    /// Starts a server on a free port and waits until it says that it is ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self {
            port,
            child: spawn(port, &arguments),
            arguments,
            connection: tokio::sync::OnceCell::new(),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// With `user:password`.
    pub(crate) fn url_with(&self, account: &str) -> String {
        format!("redis://{account}@127.0.0.1:{}", self.port)
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("ends");
    }

    /// On the same port, without the keys.
    pub(super) fn restart(&mut self) {
        self.child = spawn(self.port, &self.arguments);
    }

    /// One command as text, past the code under test.
    pub(super) async fn ask(&self, command: &[&str]) -> String {
        let connect = async || {
            let client = redis::Client::open(self.url()).expect("an address");
            client.get_multiplexed_async_connection().await.expect("connects")
        };
        let mut connection = self.connection.get_or_init(connect).await.clone();
        let mut asked = redis::cmd(command[0]);
        let reply: Value = asked
            .arg(&command[1..])
            .query_async(&mut connection)
            .await
            .expect("a reply");
        match reply {
            Value::BulkString(text) => String::from_utf8(text).expect("text"),
            Value::Int(number) => number.to_string(),
            other => format!("{other:?}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(port: u16, arguments: &[String]) -> Child {
    let mut child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(std::env::temp_dir())
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server (7.0 or newer) must be installed");
    let stdout = child.stdout.take().expect("piped");
    let mut lines = BufReader::new(stdout).lines();
    let ready = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("eady to accept connections"));
    assert!(ready, "redis-server ended before it was ready");
    // Read on, or it would block on a full pipe.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    child
}
