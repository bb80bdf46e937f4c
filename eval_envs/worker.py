"""The process of one environment, which a `WorkerProcess` starts and speaks to.

It needs numpy, gymnasium, pydantic and what the environment imports; no torch. Messages come and go
on a socket that it inherits, so a simulator may print what it likes.
"""

import faulthandler
import os
import select
import signal
import socket
import threading

from data_tools.errors import UserError
from eval_envs.messages import Begin, Execute, Made, Message, Refused, receive, send
from eval_envs.playing import EpisodePlayer, Look


def main(descriptor: int) -> None:
    """Serve on an inherited socket until the other side closes it."""
    faulthandler.enable()
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)  # what the simulator starts would keep it open
    threading.Thread(target=_end_with_evaluation, args=(connection,), daemon=True).start()
    serve(connection)


def serve(connection: socket.socket) -> None:
    """Answer every message in turn; returns when the stream is closed."""
    player = EpisodePlayer()
    while (message := receive(connection)) is not None:
        try:
            if isinstance(message, Begin):
                player.make(message.spec, message.look_at_end)
                send(connection, Made())
            answer: Message = _look(player, message)
        except UserError as error:
            answer = Refused(error.faults)
        except Exception as error:  # a simulator may raise anything
            answer = player.lose(error)
        send(connection, answer)
    player.close()


def _look(player: EpisodePlayer, message: Message) -> Look:
    match message:
        case Begin(spec):
            return player.reset(spec.seed)
        case Execute(actions):
            return player.execute(actions)
        case _:
            raise TypeError(f"found the message {message!r}; expected Begin or Execute")


def _end_with_evaluation(connection: socket.socket) -> None:
    """Ends this process and those it started when the one that started it is gone."""
    poll = select.poll()
    poll.register(connection, 0)  # a hang-up is told whatever is asked for
    poll.poll()
    os.killpg(os.getpid(), signal.SIGKILL)
