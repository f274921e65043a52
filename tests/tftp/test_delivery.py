from pxeboot.tftp.content import Memory, Pieces
from pxeboot.tftp.datagrams import peer_of
from pxeboot.tftp.delivery import Delivery
from pxeboot.tftp.packet import ReadRequest
from pxeboot.tftp.transfer import Transfer
from tests.tftp.wild import ack

NUMBERS = 0x10000


def sent_alone(content: Memory, block: int) -> Delivery:
    """A transfer in lock step, whose block `block` has just been sent."""
    transfer = Transfer(content.size)
    transfer.start(now=0.0)
    transfer.receive(ack(1), now=0.0)
    if block > 2:
        transfer.step(block - 2, now=0.0)
    delivery = Delivery(
        ReadRequest("file", "octet"), "file", peer_of(("10.77.0.50", 2000)), content, transfer
    )
    delivery.piece = Pieces().read(content, 512, block)
    delivery.expect(block)
    return delivery


def test_acks_are_only_counted_as_far_as_the_piece_goes() -> None:
    delivery = sent_alone(Memory(bytes(512 * 1000)), 2)
    assert (delivery.awaits, delivery.until - delivery.awaits) == (4 << 16 | 2, 62)  # its last block is 64


def test_acks_are_only_counted_up_to_the_block_before_the_last() -> None:
    delivery = sent_alone(Memory(bytes(512 * 10 + 7)), 2)
    assert delivery.until - delivery.awaits == 8  # blocks 3 to 10 are whole; 11 is not


def test_acks_are_not_counted_across_the_end_of_the_numbers() -> None:
    delivery = sent_alone(Memory(bytes(512 * (NUMBERS + 100))), NUMBERS - 5)
    assert delivery.until == 4 << 16 | NUMBERS - 1


def test_what_was_counted_is_told_to_the_transfer_once() -> None:
    delivery = sent_alone(Memory(bytes(512 * 1000)), 2)
    delivery.awaits += 10
    delivery.heard_at = 1.0
    for _ in range(2):
        delivery.settle()
        assert delivery.transfer.acknowledged == 11 * 512
    assert delivery.until == 0
