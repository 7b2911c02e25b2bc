FROM scratch
ENV A=value EMPTY="" P=path/to/file.tar.gz
ENV D1=${A:-x} D2=${EMPTY:-x} D3=${EMPTY-x} D4=${NONE:-x} D5=${NONE-x}
ENV S1=${A:+x} S2=${EMPTY:+x} S3=${EMPTY+x} S4=${NONE:+x} S5=${NONE+x}
ENV T1=${P#*/} T2=${P##*/} T3=${P%.*} T4=${P%%.*} R1=${P/a/A} R2=${P//a/A}
ENV Q1='$A' Q2="$A" Q3=\$A Q4="\$A" N1=${NONE:-${A}}
ENV Q5="${A:?is needed}"
