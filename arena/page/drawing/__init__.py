"""Foreign texts become HTML in processes of their own, which may be killed; knows no battle."""
