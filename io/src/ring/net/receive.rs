//! Bytes that come: receives that take up what there is, and pauses.

use std::os::fd::AsRawFd as _;

use io_uring::{cqueue, opcode, types::Fd};
use socket2::SockRef;

use super::{
    super::{
        conn::{Ending, Receive},
        recv_pool::GROUP,
    },
    Net, NetEvent,
    tag::{Kind, tag},
};
use crate::ports::ConnId;

/// Pieces that a receive of the kernel takes up at once before it lets others have their turn.
const RECEIVES_AT_ONCE: u32 = 32;

impl Net {
    pub(in crate::ring) fn pause(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        conn.paused = true;
        self.stop_receiving(id);
    }

    pub(super) fn stop_receiving(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id.slot as usize) else { return };
        if conn.receive == Receive::Armed {
            conn.receive = Receive::Stopping;
            let cancel = opcode::AsyncCancel::new(tag(Kind::Receive, id)).build();
            self.submit(cancel.user_data(tag(Kind::Cancel, id)));
        }
    }

    pub(in crate::ring) fn resume(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id) {
            conn.paused = false;
            self.arm_receive(id);
        }
    }

    pub(in crate::ring) fn arm_receive(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        if conn.receive == Receive::Idle && !conn.paused && !conn.eof {
            conn.receive = Receive::Armed;
            let receive = opcode::RecvMulti::new(Fd(conn.socket.as_raw_fd()), GROUP).build();
            self.submit(receive.user_data(tag(Kind::Receive, id)));
        }
    }

    pub(super) fn received_some(&mut self, id: ConnId, entry: &cqueue::Entry) {
        let buffer = cqueue::buffer_select(entry.flags());
        let Some(conn) = self.conns.get_mut(id.slot as usize) else { return };
        assert_eq!(conn.generation, id.generation, "a receive outlived its connection");
        if !cqueue::more(entry.flags()) {
            conn.receive = Receive::Idle;
        }
        if conn.ending == Ending::Dead {
            if let Some(buffer) = buffer {
                self.pool.give_back(buffer);
            }
            self.remove_dead(id);
            return;
        }
        match (entry.result(), buffer) {
            (len, Some(buffer)) if len > 0 => {
                conn.burst += 1;
                let is_long = conn.burst >= RECEIVES_AT_ONCE;
                let is_drained = !cqueue::sock_nonempty(entry.flags());
                if is_drained {
                    conn.burst = 0;
                }
                self.events.push_back(NetEvent::Received { conn: id, buffer, len: len as usize });
                self.arm_receive(id);
                if is_drained && is_long {
                    self.look_for_reset(id);
                }
            }
            (0, _) => self.ended(id),
            // Out of buffers: they are given back in this very turn.
            (error, _) if error == -libc::ENOBUFS || error == -libc::ECANCELED => {
                self.counts.starved += u64::from(error == -libc::ENOBUFS);
                self.arm_receive(id);
            }
            _ => self.abort(id),
        }
    }

    /// Ends the connection if its peer reset it. A receive that takes up more than it may at once
    /// forgets the event it woke up for, and when all is taken waits for another: of a reset that
    /// came before, there is none.
    fn look_for_reset(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        if !matches!(SockRef::from(&conn.socket).take_error(), Ok(None)) {
            self.abort(id);
        }
    }
}
