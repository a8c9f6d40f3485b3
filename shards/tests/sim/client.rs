//! Clients: who they talk to, how they read, and when they leave.

use ron_io::sim::Link;

use super::{
    http,
    http::Http,
    oap,
    oap::Oap,
    rude::{Misdeed, Rude},
    stage::Stage,
};

#[derive(Debug)]
enum Talk {
    Http(Http),
    Oap(Oap),
}

/// One client on one connection.
#[derive(Debug)]
pub struct Client {
    /// The shard it is connected to, and its connection there.
    pub shard: usize,
    pub link: Link,
    talk: Talk,
    /// Requests it will still make.
    wishes: u32,
    /// It keeps to no protocol.
    hostile: bool,
    /// It reads only now and then.
    pub lazy: bool,
    /// It is one of those that do not behave.
    pub rude: Option<Rude>,
    /// Its requests that the node did what they asked for.
    pub served: u64,
    /// It sends no more.
    ended: bool,
}

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// An answer that needs no memory for what is in an object.
    Answer,
    /// The first of what is in an object.
    Read,
    Other,
}

/// What a client does next.
#[derive(Debug)]
pub enum Deed {
    Write(Vec<u8>),
    /// It sends no more.
    End,
}

impl Client {
    /// A client on a connection to `listener` of a shard.
    pub fn new(shard: usize, link: Link, is_oap: bool, stage: &mut Stage<'_>) -> Client {
        let faults = stage.plan.faults;
        let hostile = stage.chance.one_in(faults.hostile);
        let talk = match is_oap {
            true => Talk::Oap(Oap::new(hostile)),
            false => Talk::Http(Http::new(hostile)),
        };
        Client {
            shard,
            link,
            talk,
            wishes: stage.chance.magnitude(30) as u32,
            hostile,
            lazy: stage.chance.one_in(faults.lazy),
            rude: None,
            served: 0,
            ended: false,
        }
    }

    /// A client that asks for one thing after another without end, and behaves unless it is `rude`.
    pub fn tireless(
        (shard, link): (usize, Link),
        (is_oap, is_tls): (bool, bool),
        rude: Option<Rude>,
    ) -> Client {
        // Nobody asked for an answer to what is no request.
        let hostile = rude.as_ref().is_some_and(|rude| rude.asks_for_nothing(is_tls));
        let talk = match is_oap {
            true => Talk::Oap(Oap::new(hostile)),
            false => Talk::Http(Http::new(hostile)),
        };
        let wishes = u32::MAX;
        Client { shard, link, talk, wishes, hostile, lazy: false, rude, served: 0, ended: false }
    }

    /// A client with one request over HTTP, and the bytes of that.
    pub fn asking(
        shard: usize,
        link: Link,
        request: impl FnOnce(&mut Http, &mut Stage<'_>) -> Vec<u8>,
        stage: &mut Stage<'_>,
    ) -> (Client, Vec<u8>) {
        let mut http = Http::new(false);
        let bytes = request(&mut http, stage);
        let talk = Talk::Http(http);
        let mut client = Client::tireless((shard, link), (false, false), None);
        (client.talk, client.wishes, client.ended) = (talk, 0, true);
        (client, bytes)
    }

    /// Requests that wait for their answers, whose client kept to the protocol.
    pub fn in_progress(&self) -> usize {
        match &self.talk {
            _ if self.hostile => 0,
            Talk::Http(http) => http.in_progress(),
            Talk::Oap(oap) => oap.in_progress(),
        }
    }

    /// What it waits for, if it made one request.
    pub fn waits_for(&self) -> Waits {
        match &self.talk {
            Talk::Http(http) => http.waits_for(),
            Talk::Oap(oap) => oap.waits_for(),
        }
    }

    /// Whether it would do something now.
    pub fn is_eager(&self, depth: usize) -> bool {
        let open = match &self.talk {
            Talk::Http(http) => http.is_open(),
            Talk::Oap(_) => true,
        };
        let more = self.wishes > 0 && self.in_progress() < depth;
        !self.ended && open && (more || (self.wishes == 0 && self.in_progress() == 0))
    }

    /// Does what it would.
    pub fn act(&mut self, stage: &mut Stage<'_>) -> Deed {
        if self.wishes == 0 {
            self.ended = true;
            return Deed::End;
        }
        self.wishes -= 1;
        Deed::Write(match &mut self.talk {
            Talk::Http(_) if self.hostile => http::garble(stage),
            Talk::Oap(_) if self.hostile => oap::garble(stage),
            Talk::Http(http) => http.request(stage),
            Talk::Oap(oap) => oap.request(stage),
        })
    }

    /// Asks for something whose answer is short, whatever the object is.
    pub fn act_briefly(&mut self, stage: &mut Stage<'_>) -> Deed {
        let object = stage.chance.pick(&stage.plan.objects);
        Deed::Write(match &mut self.talk {
            Talk::Http(http) => http.short_read(object, stage),
            Talk::Oap(oap) => oap.short_read(object, stage),
        })
    }

    /// Does what it does if it is rude; `on_the_way` bytes of it have not been taken by the node.
    pub fn misbehave(&mut self, on_the_way: usize, stage: &mut Stage<'_>) -> Misdeed {
        let Some(rude) = &mut self.rude else { return Misdeed::default() };
        let deed = match &mut self.talk {
            Talk::Http(http) => rude.http(http, on_the_way, stage),
            Talk::Oap(oap) => rude.oap(oap, on_the_way, stage),
        };
        self.ended |= deed.end;
        deed
    }

    /// Whether what it sends was never meant to be understood.
    pub fn is_hostile(&self) -> bool {
        self.hostile
    }

    /// It wishes for nothing more, and reads what comes.
    pub fn content(&mut self) {
        self.wishes = 0;
        self.lazy = false;
        self.rude = None;
    }

    /// Takes bytes of the node; returns what it answers.
    pub fn receive(&mut self, bytes: &[u8], stage: &mut Stage<'_>) -> Vec<u8> {
        let answers = *stage.answers;
        let reaction = match &mut self.talk {
            Talk::Http(http) => {
                http.receive(bytes, stage);
                Vec::new()
            }
            Talk::Oap(oap) => oap.receive(bytes, stage),
        };
        self.served += *stage.answers - answers;
        reaction
    }

    /// The connection ended.
    pub fn over(mut self, stage: &mut Stage<'_>) {
        match &mut self.talk {
            _ if self.hostile => {}
            Talk::Http(http) => http.over(stage),
            Talk::Oap(oap) => oap.over(stage),
        }
    }
}
