def draw(results, output): return []
