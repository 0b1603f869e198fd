def markdown(results, pictures): return ""
