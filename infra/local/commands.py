QUICK={}
def up(rest, everything): return 0
