"""What moves on chain: deposits, withdrawals, and the choice of coins."""

from infra.bench.chain import batcher, bystander, coins, crowds, deposits, funds

__all__ = ["batcher", "bystander", "coins", "crowds", "deposits", "funds"]
