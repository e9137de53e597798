# edgeR's glmFit with given dispersions and offsets, nothing shrunk; see r.py and edger.py.
suppressPackageStartupMessages(library(edgeR))
arguments <- commandArgs(trailingOnly = TRUE)
folder <- arguments[1]
p <- as.integer(arguments[2])
read <- function(name) {
  path <- file.path(folder, paste0(name, ".bin"))
  readBin(path, "double", file.size(path) / 8)
}
design <- matrix(read("X"), ncol = p, byrow = TRUE)
counts <- matrix(read("y"), ncol = nrow(design), byrow = TRUE)
offset <- read("offset")
dispersion <- read("dispersion")
began <- proc.time()[["elapsed"]]
fit <- glmFit(counts, design, dispersion = dispersion, offset = offset, prior.count = 0)
seconds <- proc.time()[["elapsed"]] - began
writeBin(as.double(t(fit$coefficients)), file.path(folder, "coefficients.bin"))
writeLines(format(seconds, digits = 15), file.path(folder, "seconds.txt"))
