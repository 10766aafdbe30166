//! What a process says of itself at `/metrics`, as a reader of Prometheus' text format has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::process::Chorus;

/// One metric.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    /// The names of the labels of all of its samples, but for those of the format itself.
    pub labels: BTreeSet<String>,
    /// By the name with its labels.
    pub samples: BTreeMap<String, f64>,
}

/// Waits for the line in which a server says where its metrics are. It comes before the one that says where it listens.
pub fn metrics_listening(process: &mut Chorus) -> SocketAddr {
    process.read_until("line that says where metrics are", |line| {
        line.strip_prefix("metrics listening on ").and_then(|address| address.trim().parse().ok())
    })
}

/// What a GET request is answered, the head included.
pub async fn get(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("it answers");
    answer
}

/// The metrics at an address, as text.
pub async fn text(address: SocketAddr) -> String {
    let answer = get(address, "/metrics").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    body.to_owned()
}

/// What all samples of one metric at an address come to.
pub async fn total(address: SocketAddr, name: &str) -> f64 {
    let families = families(&text(address).await);
    families.get(name).unwrap_or_else(|| panic!("{name} is not there")).samples.values().sum()
}

/// The metrics of a text, by name.
pub fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
            let family = family_of(&mut families, sample);
            family.labels.extend(labels(sample).filter(|label| label != "le"));
            family.samples.insert(sample.to_owned(), value.parse().expect("a number"));
        }
    }
    families
}

fn family_of<'a>(families: &'a mut BTreeMap<String, Family>, sample: &str) -> &'a mut Family {
    let name = sample.split('{').next().unwrap_or_default();
    let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|suffix| name.strip_suffix(suffix));
    let known = of_histogram.chain([name]).find(|name| families.contains_key(*name)).map(str::to_owned);
    families.get_mut(&known.unwrap_or_else(|| panic!("{sample} is of no type"))).expect("it was found")
}

fn labels(sample: &str) -> impl Iterator<Item = String> {
    let inside = sample.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
    // No label of ours has a comma in its value.
    inside.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()))
}
