# edgeR's glmFit with given dispersions and offsets, nothing shrunk; see r.py and edger.py.
suppressPackageStartupMessages(library(edgeR))
design <- matrix(read("X"), ncol = p, byrow = TRUE)
counts <- matrix(read("y"), ncol = nrow(design), byrow = TRUE)
offset <- read("offset")
dispersion <- read("dispersion")
began <- proc.time()[["elapsed"]]
fit <- glmFit(counts, design, dispersion = dispersion, offset = offset, prior.count = 0)
seconds <- proc.time()[["elapsed"]] - began
writeBin(as.double(t(fit$coefficients)), file.path(folder, "coefficients.bin"))
writeLines(format(seconds, digits = 15), file.path(folder, "seconds.txt"))
