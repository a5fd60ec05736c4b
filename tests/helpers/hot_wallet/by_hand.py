"""What somebody does by hand with the hot wallet, past the engine."""

from decimal import Decimal

from infra.local.bitcoin_rpc import HOT
from infra.local.chain.payer import satoshi
from tests.helpers.chain import STRANGER, Chain

Outpoint = tuple[str, int]


def spend(chain: Chain, coins: list[Outpoint], amount_sat: int) -> tuple[str, int]:
    """Pay `stranger` out of exactly these coins, with change; returns the txid, and what has left the wallet."""
    asked = {
        "inputs": [{"txid": txid, "vout": vout} for txid, vout in coins],
        "add_inputs": False,
        "include_unsafe": True,
        "fee_rate": 5,
        "replaceable": True,
    }
    sent = chain.rpc(HOT).call("send", outputs=[{chain.address(STRANGER): btc(amount_sat)}], options=asked)
    chain.sync()
    return sent["txid"], left(chain, sent["txid"])


def back_to_itself(chain: Chain, coins: list[Outpoint]) -> str:
    """Sign a transaction that pays these coins to the wallet's own change, for no fee: hex, to be put into a block."""
    spent = [{"txid": txid, "vout": vout} for txid, vout in coins]
    total = sum(Decimal(str(chain.call("gettxout", txid, vout, False)["value"])) for txid, vout in coins)
    raw = chain.call("createrawtransaction", spent, {change_address(chain): str(total)})  # else it would be a deposit
    signed = chain.call("signrawtransactionwithwallet", raw, wallet=HOT)
    assert signed["complete"]
    return str(signed["hex"])


def abandon(chain: Chain, wallet: str) -> None:
    """Have a wallet forget its transactions that are in no block and not in the mempool."""
    listed = chain.call("listtransactions", "*", 1000, 0, wallet=wallet)
    waiting = {each["txid"] for each in listed if each["confirmations"] == 0 and not each["abandoned"]}
    for txid in sorted(waiting - set(chain.mempool())):
        chain.call("abandontransaction", txid, wallet=wallet)


def left(chain: Chain, txid: str) -> int:
    """What a transaction of the wallet has taken from it, the fee included."""
    told = chain.call("gettransaction", txid, wallet=HOT)
    return -satoshi(told["amount"]) - satoshi(told["fee"])


def change_address(chain: Chain) -> str:
    """A new one of the wallet, which it means for its own change."""
    return str(chain.call("getrawchangeaddress", "bech32", wallet=HOT))


def btc(amount_sat: int) -> str:
    """As bitcoind reads it, exactly."""
    return f"{Decimal(amount_sat) / 10**8:.8f}"
